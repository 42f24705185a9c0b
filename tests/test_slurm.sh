#!/usr/bin/env bash
# Extraction on a cluster: a Slurm of two nodes on this machine; one dies in the middle, a task on the other is told that its
# time is up.  What comes out are the bytes of a run that nobody touched.
# Usage: test_slurm.sh path/to/lapidary path/to/data
# 77: there is no Slurm here (apt-get install slurmctld slurmd slurm-client munge).
PATH=$PATH:/usr/sbin
for program in slurmctld slurmd sbatch munged; do
    command -v $program >/dev/null || { echo "skipped: no $program" && exit 77; }
done
# shellcheck source=tests/cli_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/cli_lib.sh"
cluster=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../store/cluster")
lapidary=$(realpath "$lapidary") data=$(realpath "$2")
scratch=$(realpath "$scratch")
export LC_ALL=C.UTF-8 SLURM_CONF=$scratch/slurm.conf
unset "${!SBATCH_@}" "${!SLURM_JOB@}"

# ---- the cluster

# Processes of this cluster, by what no other process has in its environment: those of one job, or all.
ours() {
    local p job=${1:-}
    for p in /proc/[0-9]*; do
        grep -qzxF "SLURM_CONF=$SLURM_CONF" "$p/environ" 2>/dev/null || continue
        if [ -z "$job" ] || grep -qzxF "SLURM_JOB_ID=$job" "$p/environ" 2>/dev/null ||
            grep -qF "slurmstepd: [$job." "$p/cmdline" 2>/dev/null; then echo "${p#/proc/}"; fi
    done
}
clean_up() {
    local i p
    for ((i = 0; i < 3; i++)); do
        for p in $(ours); do kill -KILL "$p" 2>/dev/null; done
    done
    [ ! -s "$scratch/munge.pid" ] || kill "$(cat "$scratch/munge.pid")" 2>/dev/null
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# until_true SECONDS COMMAND...: a limit for what should never take that long, not a measure.
until_true() {
    local i limit=$(($1 * 10))
    shift
    for ((i = 0; i < limit; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    return 1
}
give_up() {
    complain "$*"
    squeue >&2
    tail -n 5 "$scratch"/*.log >&2
    exit 1
}

free_port() {
    local port
    for _ in $(seq 50); do
        port=$((RANDOM % 20000 + 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}
node() { echo "NodeName=$1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1 RealMemory=4000"; }

chmod 755 "$scratch" # munged wants its socket's folder to be everybody's
mkdir "$scratch/control" "$scratch/n0" "$scratch/n1"
head -c 128 /dev/urandom >"$scratch/key" && chmod 400 "$scratch/key"
cat >"$SLURM_CONF" <<END
ClusterName=lapidary
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$scratch/munge.socket
StateSaveLocation=$scratch/control
SlurmctldPidFile=$scratch/control.pid
SlurmctldLogFile=$scratch/control.log
SlurmdSpoolDir=$scratch/%n
SlurmdPidFile=$scratch/%n.pid
SlurmdLogFile=$scratch/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1
ReturnToService=2
SlurmdTimeout=5
KillWait=2
$(node n0)
$(node n1)
PartitionName=all Nodes=n0,n1 Default=YES State=UP
END
munged --force --socket="$scratch/munge.socket" --key-file="$scratch/key" --pid-file="$scratch/munge.pid" \
    --log-file="$scratch/munge.log" --seed-file="$scratch/munge.seed" 2>"$err" || give_up "munged does not start"
(cd "$scratch" && slurmctld -c && slurmd -N n0 -c && slurmd -N n1 -c) 2>"$err" || give_up "Slurm does not start"
is_idle() { [ "$(sinfo -h -o '%t %D' -t idle)" = "idle 2" ]; }
until_true 30 is_idle || give_up "two nodes do not become idle"

# ---- the run nobody touched, and the same as an array
head -n 30 "$data/demo.jsonl" >"$scratch/corpus.jsonl"
export CORPUS=$scratch/corpus.jsonl STORE=$scratch/store SAES=3-lapidary-res-2k LAPIDARY=$lapidary
export OPTIONS="--shard-tokens 600"
"$lapidary" extract "$CORPUS" -S $SAES --store "$scratch/whole" --shard-tokens 600 -q >/dev/null 2>"$err" </dev/null ||
    give_up "a plain run fails"
bytes_of() { (cd "$1"/runs/* && find . \( -name 'shard-*' -o -name run.json -o -name plan.jsonl \) -print0 | sort -z | xargs -0 sha256sum); }
shards() { find "$STORE" -name 'shard-*.h5' 2>/dev/null | wc -l; }
n=$(find "$scratch/whole" -name 'shard-*.h5' | wc -l)
if [ "$n" -ge 6 ]; then good; else complain "only $n shards"; fi

cd "$scratch" || exit 1
array=$("$cluster/submit.sh" 3 --cpus-per-task=1 --mem=500M 2>"$err") || give_up "submit.sh fails"
field() { scontrol show job "$1" 2>/dev/null | grep -oE "\b$2=[^ ]*" | head -n 1 | cut -d= -f2; }
is_state() { [ "$(field "$1" JobState)" = "$2" ]; }
task_on() { squeue -h -w "$1" -t R -o "%A %i" | grep " ${array}_" | head -n 1; }

# ---- a node dies with all that is on it
has_shard() { compgen -G "$STORE/runs/*/shard-*.h5"; }
is_busy() { [ -n "$(task_on n0)" ] && [ -n "$(task_on n1)" ] && has_shard; }
until_true 60 is_busy || give_up "no task makes a shard"
read -r job task <<<"$(task_on n1)"
kill -KILL "$(cat n1.pid)"
for ((i = 0; i < 2; i++)); do
    for p in $(ours "$job"); do kill -KILL "$p" 2>/dev/null; done
done
if [ "$(shards)" -lt "$n" ]; then good; else complain "killed too late: all shards were there"; fi

# ---- the other task hears that its time is nearly up (as --signal has it: the step alone, not the script)
read -r _ other <<<"$(task_on n0)"
scancel --signal=TERM "$other"
until_true 30 is_state "$other" PENDING || give_up "a task that was told to end is not queued again"
if grep -q "the same command goes on" extract-*.log; then good; else complain "it did not end by itself"; fi

until_true 60 is_state "$task" PENDING || give_up "the task of the dead node is not queued again"
if [ "$(shards)" -lt "$n" ]; then good; else complain "nothing is left to be done"; fi
# Slurm lets what it queued again wait for two minutes, so that no order to kill the first attempt reaches the second.  The
# other node never got that order.
for t in "$task" "$other"; do
    ! is_state "$t" PENDING || scontrol update JobId="$t" StartTime=now 2>"$err" || complain "$t cannot start now"
done

# ---- the end
has_begun() { ! is_state "$task" PENDING; }
until_true 60 has_begun || give_up "the task of the dead node does not begin again"
slurmd -N n1 -c # it is back, for what comes afterwards
is_over() { [ -z "$(squeue -h -o %i)" ]; }
until_true 120 is_over || give_up "it does not come to an end"
for t in 0 1 2; do
    if is_state "${array}_$t" COMPLETED; then good; else complain "task $t: $(field "${array}_$t" JobState)"; fi
done
for t in "$task" "$other"; do
    if [ "$(field "$t" Restarts)" = 1 ]; then good; else complain "$t started $(field "$t" Restarts) times again"; fi
done
: >"$err"
if [ "$(bytes_of "$STORE")" = "$(bytes_of "$scratch/whole")" ]; then good; else complain "other bytes than the run nobody touched"; fi

for log in merge-*.log; do
    if [ -s "$log" ] && compgen -G "$STORE/runs/*/run.h5" >/dev/null; then good; else complain "no run.h5: $(cat "$log")"; fi
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
