"""The catalog: manifests, origins, specs, evidence, approvals and refs, shared by all environments.

    <catalog>/probe                                           was created twice to prove the store
              format                                          the layout's version, once the store is proved
              id                                              tells this catalog from others
    datasets/<dataset>/manifests/<sha256>.parquet             the entries of one version
                       origins/<sha256>.parquet               where they came from when they were last staged
                       specs/<sha256>/<seq>.json              the specs that the version was staged from, with it
                       failed/<sha256>/<seq>.json             the objects that the version lacks; the last one counts
                       evidence/<sha256>/<seq>.json           all evidence about it so far; the last one counts
                       values/<sha256>.json                   what a validation counted of a table's files, by its name
                       parts/<sha256>.json                    what a validation profiled of a table's files, likewise
                       profiles/<sha256>/<sha256>.json        the profile of one version's table, by the table's name
                       probes.json                            the digests of files that passed a probe
                       fleets/<sha256>.json                   the nodes that fetched one version together last; replaced
                       transfers/<sha256>.json                what the last staging of a version transferred; replaced
                       decisions/<sha256>/<target>/<seq>.json attestations, accepting or not
                       signatures/<sha256>/<key>.json         DSSE envelopes around an attestation, by its own digest
                       model-signatures/<sha256>/<seq>.json   signatures of a version's files, as Sigstore bundles
                       waivers/<sha256>/<target>/<seq>.json   who answers for which failure, and until when
                       revocations/<sha256>/<seq>.json        evidence that no longer counts, since when and why
                       approvals/<target>/<request>/request.json, <seq>.json      a request and its answers
                                                   /waits/<flow run>.json         flow runs that wait for an answer
                       policy/<seq>.json                      the policies that were adopted: a hash-chained log
                       proposals/<sha256>.json                policies that are proposed for adoption
                       refs/<ref>/<seq>.json                  the moves of one ref: a hash-chained log
                       <package>.<kind>/….json                records that another package declares, see `doors.Record`
    environments/<sha256>.json                                the environment of decisions, which name it by this digest
    <plugin>.<kind>/<dataset>/<name>/<seq>.json               what a plugin of this package knows of all datasets
    nodes/<node>.json                                         what a node holds, and when it said so; replaced

It lies in a local directory or an object store. The compare-and-swap is the creation of a numbered record, which fails
when the record exists. Opening a catalog tests that, and refuses a store that lets a record be created twice.
"""

from prefect_stagegate.catalog.catalog import Catalog
from prefect_stagegate.catalog.policies import Consent, PolicyEntry, adopted_as
from prefect_stagegate.catalog.refs import RefAction, RefEntry, RefHead, moves, withdrawal_of, withdrawn

__all__ = [
    "Catalog",
    "Consent",
    "PolicyEntry",
    "RefAction",
    "RefEntry",
    "RefHead",
    "adopted_as",
    "moves",
    "withdrawal_of",
    "withdrawn",
]
