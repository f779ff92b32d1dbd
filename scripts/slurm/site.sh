# shellcheck shell=bash disable=SC2034,SC2154
# What is particular to your cluster and your account: edit it once. `submit` reads it where you are, `pretrain.sbatch` on the first node.

# Options of sbatch that all your jobs need.
SBATCH_OPTIONS=(
    # --account=my_project
    # --partition=gpu
    # --cpus-per-task=8 # cores of each rank: data, checkpoints and W&B have threads and processes of their own
)

# Environment modules that the nodes need, as `module load` takes them; most clusters need none, since PyTorch brings its CUDA libraries.
MODULES=()

# The Python environment, on a file system that all nodes see; what `python -m venv` made, or conda.
PYTHON=$checkout/.venv/bin/python # as scripts/demo makes it

# A container that the ranks run in: the words before `python`. PYTHON is then the one inside it.
CONTAINER=() # (apptainer exec --nv --bind /scratch pretrain.sif)

# How often a job goes back into the queue by itself after its time limit or a preemption.
MAX_RESTARTS=100

# The environment of every rank.
export NCCL_DEBUG=WARN
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 # a collective that fails ends its rank
# export NCCL_IB_HCA=mlx5                # InfiniBand adapters that NCCL may use
# export NCCL_SOCKET_IFNAME=ib0          # network interfaces: NCCL's; Gloo's is the one that leads to the first node
# export GLOO_SOCKET_IFNAME=ib0          # (or both with launch.interface=ib0)
# export MASTER_PORT=29500               # the ranks meet on the first node, at port 15000 + job number mod 10000
# export HF_HOME=/scratch/$USER/huggingface
# export HF_HUB_OFFLINE=1 WANDB_MODE=offline # nodes without internet
