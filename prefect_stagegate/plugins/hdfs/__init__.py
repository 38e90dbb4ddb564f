"""HDFS: a NameNode or name service of Hadoop."""

from prefect_stagegate.doors import Plugin, Source, options

HDFS = Source(
    "an HDFS source",
    options(
        value="dfs.client.use.datanode.hostname dfs.client.socket-timeout dfs.client.failover.random.order "
        "dfs.client.failover.max.attempts dfs.client.failover.resolve-needed dfs.client.failover.resolver.useFQDN "
        "dfs.client.failover.sleep.base.millis dfs.client.failover.sleep.max.millis dfs.data.transfer.protection "
        "dfs.nameservices dfs.ha.namenodes.* hadoop.security.authentication",
        address="dfs.namenode.rpc-address.*",
    ),
    schemes=("hdfs",),
    opener=f"{__name__}.hdfs:HdfsSource",
    extra="hdfs",
)
PLUGIN = Plugin(sources=(HDFS,))
