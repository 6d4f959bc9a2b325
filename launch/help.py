"""What ``shardrec --help`` and ``shardrec VERB --help`` print."""

HELP = """usage: shardrec VERB [key=value ...]

From Parquet logs of interactions to a trained, exactly evaluated and priced recommender.

verbs:
  config      print the resolved run
  prepare     make the store at data.store of the log at data.log
  inspect     show what is in a store
  train       prepare where needed, then train, resuming by itself
  launch      the same on a cluster: several machines, Slurm, Kubernetes
  evaluate    rank the whole catalogue with a run's best checkpoint
  bench NAME  run one benchmark
  doctor      check this machine, and name what mends it

shardrec VERB --help shows the options that matter. Every key: shardrec config"""

VERB_HELP = {
    "config": """usage: shardrec config [key=value ...]

Prints the resolved run as YAML.

  experiment=NAME     smoke | ml1m_sasrec | ml1m_sasrec_sampled | beauty_sasrec  (none)
  model=sasrec  data=log|synthetic|ml1m|beauty|movielens_1m|... (docs/sources.md)
  loss=full_softmax|sampled_softmax|bce|gbce
  optimizer=default|adam  sharding=planner|row_wise|table_wise|column_wise|data_parallel  hardware=cpu|h100""",
    "prepare": """usage: shardrec prepare data.log=LOG data.store=STORE [key=value ...]

Makes a store of a log. Writes STORE. Both may be s3://BUCKET/PATH: docs/object_stores.md

  data.log               Parquet, CSV or JSON-lines file, folder or glob  (required)
  data.store             the store to write; behind a URL it needs data.spill_dir  (required)
  data                   log | movielens_1m | amazon_2023 | taobao | otto | ...: docs/sources.md  (log)
  data.columns.user      the log's column of users  (user_id)
  data.columns.item      the log's column of items  (item_id)
  data.columns.timestamp the log's column of times  (timestamp)
  data.columns.event_type  the log's column of kinds of events  (none)
  data.event_types       keep these kinds alone, such as [buy]  (all)
  data.source.layout     auto | parquet | delimited | json_lines; auto: by the file's ending  (auto)
  data.source.separator  between the fields of a delimited file: , | :: | tab  (,)
  data.source.header     names of the columns where a file has no header line, such as [a,b,c]  (none)
  data.source.time_unit  of times that are numbers: s | ms | us | ns  (ms)
  data.deduplicate       the same user, item, time and kind counts once  (false)
  data.min_user_events   users with fewer events are left out  (1)
  data.min_item_events   items with fewer events are left out  (1)
  data.max_bad_fraction  more broken rows than this are an error  (0.01)
  data.memory_gib        GiB of events held in memory  (2.0)
  data.spill_dir         where what does not fit in memory is kept  (beside the store)
  data.features.NAME.type  keep a column as a feature, category | number: docs/features.md
  data.append            add the log to the store that is there  (false)
  data.engine            embedded | spark: docs/prepare.md, "On Spark"  (embedded)
  data.spark_master      such as spark://HOST:7077  (what SPARK_REMOTE or spark-submit says, else this machine)""",
    "inspect": """usage: shardrec inspect STORE [--json] [key=value ...]

Counts, distributions, rejected rows by reason and a few histories of a store. Writes one picture.

  --json        print JSON instead, and write no picture
  png           the picture, where matplotlib is installed; empty: none  (STORE.png, beside the store)
  users         so many histories are shown  (3)
  titles        Parquet or CSV file with the titles of the items  (none)
  titles_item   its column of raw item ids  (item_id)
  titles_title  its column of titles  (title)""",
    "train": """usage: shardrec train [key=value ...]

Prepares the store if it is not there, then trains; the same run_dir again resumes. Writes RUN_DIR.

  experiment=NAME        smoke | ml1m_sasrec | ml1m_sasrec_sampled | beauty_sasrec  (none)
  run_dir                where the run is written: a folder, or s3://BUCKET/PATH  (runs/default)
  scratch_dir            folder of this machine for a run behind a URL  (the user's cache)
  data.store             the store to learn from: a folder, or s3://BUCKET/PATH  (required without an experiment)
  data.log               the log to make the store of where it is a folder that is not there  (none)
  data.split             leave_one_out | global_time  (leave_one_out)
  num_epochs             passes over the training users  (10)
  num_steps              stop after this many steps; 0: by num_epochs  (0)
  hardware.num_ranks     processes, one device each  (2)
  model.embedding_dim    width of the tables and of the model, a multiple of 4  (64)
  model.num_blocks       layers of attention  (2)
  model.num_heads        of each layer  (2)
  model.dropout          share of values dropped; model.attention_dropout is a key of its own  (0.2)
  model.precision        fp32 | bf16, of the blocks' linear layers  (fp32)
  loss                   full_softmax | sampled_softmax | bce | gbce  (full_softmax)
  optimizer.table        rowwise_adagrad | adagrad | sgd | adam, of the tables  (rowwise_adagrad)
  evaluation.every_epochs  validate, and keep the best model, every so many epochs  (1)
  evaluation.patience    validations without a better model that end the run  (10)
  checkpoint.every_steps   save every so many steps  (500)
  sharding               planner | row_wise | table_wise | column_wise | data_parallel  (planner)""",
    "launch": """usage: shardrec launch cluster=NAME [--multirun] [--dry-run] [key=value ...]

Starts `shardrec train key=value ...` on a cluster. Writes RUN_DIR; the same command again resumes.

  cluster                local | torchrun | slurm | kubernetes  (local)
  --dry-run              print the batch script, the commands or the manifest; start nothing
  -m, --multirun         every combination of keys with several values (seed=1,2), each in RUN_DIR/NUMBER
  cluster.nodes          machines, which share out hardware.num_ranks  (1)
  cluster.min_nodes      an elastic job goes on with so many; 0: with all  (0)
  cluster.max_restarts   so often failed ranks start again from the last checkpoint  (0)
  cluster.rendezvous_timeout_s  nodes that do not meet by then end with the reason  (60)
torchrun:
  cluster.endpoint       HOST:PORT of node 0  (required)
  cluster.node           start this machine as that node; -1 prints the command of each  (-1)
slurm:
  cluster.partition  cluster.account  cluster.qos  cluster.constraint  cluster.exclusive
  cluster.time_limit     before it, and when preempted, it saves and queues itself again  (the partition's)
  cluster.setup          lines of shell before the ranks start, such as ['source env.sh']
  cluster.sbatch_flags   further flags, such as [--mail-type=END]
  cluster.follow         show state and log until the job ends  (true)
kubernetes:
  cluster.image  cluster.volume_claim  cluster.namespace  (required, required, default)

Every key: configs/schema/cluster.py""",
    "evaluate": """usage: shardrec evaluate run_dir=RUN_DIR [key=value ...]

Exact ranking of a run's best checkpoint against the baselines. Writes RUN_DIR/evaluation.json.

  run_dir                      the run to evaluate  (runs/default)
  evaluation.leave_out_seen    items of the user's history are no candidates  (true)
  evaluation.batch_size        users ranked at once  (256)
  hardware.num_ranks           processes that share the users, one device each  (the run's)""",
    "doctor": """usage: shardrec doctor [key=value ...] [--json]

Checks whether this machine can train the run that the keys choose, and trains two steps on two ranks. A row a check:
ok, warn or FAIL with the command that mends it. Exit code 1 where one failed. Takes half a minute.

  hardware               cpu | h100: what to check for  (cpu)
  hardware.num_ranks     processes on each node  (2)
  run_dir                its disk is checked  (runs/default)
  data.store             its disk is checked  (none)
  doctor.nodes           nodes that must see run_dir; asks Slurm for them  (those of the allocation, else 1)
  --json                 one JSON object on stdout and nothing else""",
    "bench": """usage: shardrec bench NAME [key=value ...]

Runs one benchmark. Writes benchmarks/results/NAME.json.

  NAME        needs             measures
  stream      data.store=STORE  store to batches; of a store of 10 M events or more it writes stream_large.json
  step        data.store=STORE  a training step beside a plain padded one
  attention   data.store=STORE  attention kernels side by side
  evaluate    data.store=STORE  exact ranking of the whole catalogue
  checkpoint  data.store=STORE  saving and loading; run_dir names the disk  (runs/bench_checkpoint)
  prepare     nothing           logs to stores, two made-up logs of its own
                                data.memory_gib  GiB of events held in memory  (2.0)
                                data.log         folder that keeps the logs for the next time  (none)
  loss        nothing           the softmax over the whole catalogue

On a GPU (hardware=h100) the record is NAME_HARDWARE.json, such as step_h100.json; prepare uses none.""",
}
