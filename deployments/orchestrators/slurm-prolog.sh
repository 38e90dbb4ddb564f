#!/bin/sh
# Slurm's Prolog: fetches the version that a job names to this node, before the job begins.
#
#   sbatch --comment=stagegate:nycflights@production train.sbatch
#
# slurm.conf:
#   Prolog=/etc/slurm/prolog.d/stagegate.sh
#   PrologFlags=Alloc,DeferBatch                  # on all nodes of the job, and before its script
#   PrologEpilogTimeout=900                       # more than SECONDS below
#   BatchStartTimeout=900
#   SchedulerParameters=nohold_on_prolog_fail     # a job goes to another node when its Prolog failed
#
# Slurm drains a node whose Prolog fails. So this one fails only where the node's own cache can't be used. Whatever else
# went wrong, the job's own `stagegate ready` says so, and the job requeues itself.
set -u
# slurmd exports none.
export PATH=/opt/stagegate/bin:/usr/sbin:/usr/bin:/sbin:/bin
SECONDS_TO_FETCH=600

# Any user may write anything into a comment, and this runs as root: only a version's name is taken from it.
version=$(printf '%s\n' "${SLURM_JOB_COMMENT-}" | sed -n 's/.*stagegate:\([a-z0-9][a-z0-9-]*@[a-z0-9][a-z0-9:-]*\).*/\1/p' | head -n 1)
[ -n "$version" ] || exit 0

# Lines NAME=VALUE without quotes, for systemd's EnvironmentFile, too. They are read and not run, since this is root.
settings=/etc/stagegate/stagegate.env
[ -r "$settings" ] || {
    logger -t stagegate-prolog "job ${SLURM_JOB_ID-}: $settings can't be read"
    exit 0
}
while IFS= read -r line || [ -n "$line" ]; do
    name=${line%%=*}
    case $name in
    "$line" | *[!A-Z0-9_]*) continue ;; # a comment, or no setting
    STAGEGATE_* | AWS_* | AZURE_* | GOOGLE_* | HF_* | PREFECT_* | GX_* | OTEL_* | OPENLINEAGE_*) export "$name=${line#*=}" ;;
    *_PROXY | SSL_CERT_*) export "$name=${line#*=}" ;;
    esac
done <"$settings"
STAGEGATE_CACHE=${STAGEGATE_CACHE:-/var/cache/stagegate}
export STAGEGATE_CACHE

# As the user whom the cache belongs to. SIGTERM ends it within 2 s; what it has fetched by then stays for the next run.
document=$(timeout --kill-after=10 "$SECONDS_TO_FETCH" runuser -u stagegate -- stagegate stage "$version" --compact)
status=$?
[ "$status" -eq 0 ] && exit 0
logger -t stagegate-prolog "job ${SLURM_JOB_ID-}: $version: exit code $status: $document"
case $document in
*'"type":"CacheError"'*) exit 1 ;;
esac
exit 0
