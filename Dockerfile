# Shardrec on the CPU:   docker build -t shardrec .
# What it installs is what README.md installs; tests/test_dockerfiles.py compares the two.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/shardrec
COPY . .
# The CPU build of torch first, from PyTorch's own index: the default wheel holds CUDA.
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch==2.13.0 ./tools/fbgemm_shim torchrec==1.8.0 .
# A volume with the log, the store and the runs is mounted here.
WORKDIR /workspace
ENTRYPOINT []
CMD ["shardrec", "--help"]
