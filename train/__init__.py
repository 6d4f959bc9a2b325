"""Makes a model learn on many devices: the only place that knows process groups."""

from shardrec import put_first

put_first()  # before any other import of ours: `torchrun -m train.evaluate` may start beside a folder `configs`
