"""One tool in a process of its own: it fetches an object, or all, whenever it is told to.

    python worker.py TOOL '{"endpoint_url": …, "key": …, "secret": …}'          one JSON line in, one out, until the end
    python worker.py TOOL '{…}' PREFIX OUT                                      all below a prefix, once

Only the standard library is imported before the tool is known: this file also runs in environments that hold nothing
but one tool.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

BUCKET = "lake"
REPOSITORY = "measured/files"
Options = dict[str, str]


class Tool:
    """What each tool does; `fetch` and `verify` raise when they notice something. Not every tool can do all of it."""

    def __init__(self, options: Options) -> None:
        self.options, self.dataset = options, "measured"

    def prepare(self, key: str) -> None:
        """Do what comes before the download that is measured."""

    def fetch(self, key: str, out: Path) -> Path:
        """Download an object; returns the file that a reader opens."""
        raise NotImplementedError

    def verify(self, key: str, out: Path) -> None:
        """Run the tool's own verification of what `fetch` brought into the folder."""
        raise NotImplementedError

    def fetch_all(self, prefix: str, out: Path) -> None:
        """Download all below a prefix, as fast as it can."""
        raise NotImplementedError


class Blind(Tool):
    """Believes everything: what a harness must show as letting all through."""

    def fetch(self, key: str, out: Path) -> Path:
        url = f"{self.options['endpoint_url']}/{BUCKET}/{key}"
        signed = self._signed(url)
        # Read by hand: `read` would notice an answer that ends early.
        with urllib.request.urlopen(signed) as response:  # noqa: S310 - our own address
            data = b""
            while chunk := response.read1(1 << 20):
                data += chunk
        (out / "data.bin").write_bytes(data)
        return out / "data.bin"

    def _signed(self, url: str) -> str:
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.options["endpoint_url"], aws_access_key_id=self.options["key"],
            aws_secret_access_key=self.options["secret"], region_name="us-east-1",
        )  # fmt: skip
        key = url.partition(f"/{BUCKET}/")[2]
        return str(client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key}))


class Obstore(Tool):
    def store(self) -> Any:
        from obstore.store import S3Store

        return S3Store(
            BUCKET, endpoint=self.options["endpoint_url"], access_key_id=self.options["key"],
            secret_access_key=self.options["secret"], region="us-east-1", client_options={"allow_http": True},
        )  # fmt: skip

    def fetch(self, key: str, out: Path) -> Path:
        import obstore

        with (out / "data.bin").open("wb") as file:
            for chunk in obstore.get(self.store(), key).stream(1 << 20):
                file.write(chunk)
        return out / "data.bin"

    def fetch_all(self, prefix: str, out: Path) -> None:
        import asyncio

        import obstore

        store = self.store()
        names = iter([item["path"] for page in obstore.list(store, prefix, chunk_size=1000) for item in page])

        async def work() -> None:
            for name in names:  # which the workers share
                got = await obstore.get_async(store, name)
                file = out / name.removeprefix(prefix)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb", buffering=0) as opened:
                    async for chunk in got.stream(1 << 20):
                        opened.write(chunk)

        async def all_of_them() -> None:
            await asyncio.gather(*(work() for _ in range(32)))

        asyncio.run(all_of_them())


class S3fs(Tool):
    def system(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(**self.options, use_listings_cache=False)

    def fetch(self, key: str, out: Path) -> Path:
        self.system().get_file(f"{BUCKET}/{key}", str(out / "data.bin"))
        return out / "data.bin"

    def fetch_all(self, prefix: str, out: Path) -> None:
        self.system().get(f"{BUCKET}/{prefix}", str(out), recursive=True, batch_size=64)


class Msc(Tool):
    def client(self) -> Any:
        from multistorageclient import StorageClient, StorageClientConfig

        keys = {"access_key": self.options["key"], "secret_key": self.options["secret"]}
        provider = {"base_path": BUCKET, "endpoint_url": self.options["endpoint_url"], "region_name": "us-east-1"}
        profile = {
            "storage_provider": {"type": "s3", "options": provider},
            "credentials_provider": {"type": "S3Credentials", "options": keys},
        }
        return StorageClient(StorageClientConfig.from_dict({"profiles": {"lake": profile}}, profile="lake"))

    def fetch(self, key: str, out: Path) -> Path:
        self.client().download_file(key, str(out / "data.bin"))
        return out / "data.bin"

    def fetch_all(self, prefix: str, out: Path) -> None:
        client = self.client()
        names = [item.key for item in client.list(path=prefix)]
        files = [out / name.partition(prefix)[2] for name in names]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        client.download_files([prefix + name.partition(prefix)[2] for name in names], [str(file) for file in files])


class Aws(Tool):
    """The command's own main function, since a new interpreter for each case takes a second."""

    def run(self, *arguments: str) -> None:
        from awscli.clidriver import create_clidriver

        command = ["--endpoint-url", self.options["endpoint_url"], "s3", *arguments, "--only-show-errors"]
        if status := create_clidriver().main(command):
            raise RuntimeError(f"exit {status}")

    def fetch(self, key: str, out: Path) -> Path:
        self.run("cp", f"s3://{BUCKET}/{key}", str(out / "data.bin"))
        return out / "data.bin"

    def verify(self, key: str, out: Path) -> None:
        self.run("sync", f"s3://{BUCKET}/{key.rpartition('/')[0]}/", str(out))

    def fetch_all(self, prefix: str, out: Path) -> None:
        self.run("cp", "--recursive", f"s3://{BUCKET}/{prefix}", str(out))


class Hub(Tool):
    def api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(self.options["endpoint_url"], token=False)

    def fetch(self, key: str, out: Path) -> Path:
        return Path(self.api().hf_hub_download(REPOSITORY, key, repo_type="dataset", local_dir=out))

    def verify(self, key: str, out: Path) -> None:
        """`hf cache verify --local-dir`."""
        del key
        if wrong := self.api().verify_repo_checksums(REPOSITORY, repo_type="dataset", local_dir=out).mismatches:
            raise ValueError(f"{len(wrong)} files are wrong")


class Stagegate(Tool):
    """Staging for the first time: nobody knows the digest."""

    def workspace(self, node: Path, catalog: Path) -> Any:
        from prefect_stagegate.jobs.open_workspace import open_workspace

        return open_workspace(node, catalog, resolve_credentials=lambda _: self.keys())

    def keys(self) -> Options:
        return {name: value for name, value in self.options.items() if name != "repository"}

    def spec(self, prefix: str) -> dict[str, Any]:
        if repository := self.options.get("repository"):
            source: dict[str, Any] = {"url": f"hf://{repository}/", "include": [f"{prefix}*"]}
            source["options"] = {"endpoint": self.options["endpoint_url"]}
        else:
            source = {"url": f"s3://{BUCKET}/{prefix}", "credentials": "aws-credentials/lake"}
            source["options"] = {"endpoint_url": self.options["endpoint_url"]}
        return {"stagegate": 1, "dataset": self.dataset, "sources": [source]}

    def stage(self, key: str, node: Path, catalog: Path) -> Any:
        from prefect_stagegate.jobs.staging.stage import stage

        return stage(self.workspace(node, catalog), self.spec(f"{key.rpartition('/')[0]}/"))

    def fetch(self, key: str, out: Path) -> Path:
        return self.file(self.stage(key, out / "cache", out / "catalog").path)

    def file(self, view: Path) -> Path:
        return next(path for path in view.rglob("data.bin"))

    def verify(self, key: str, out: Path) -> None:
        """`stagegate verify`."""
        from prefect_stagegate.jobs.upkeep.verify import verify

        del key
        verification = verify(self.workspace(out / "cache", self.catalog(out)))
        if verification.damaged or verification.quarantined:
            raise ValueError(f"{len(verification.damaged)} files are damaged")

    def catalog(self, out: Path) -> Path:
        """Which catalog a folder's cache belongs to."""
        return out / "catalog"

    def fetch_all(self, prefix: str, out: Path) -> None:
        from prefect_stagegate.jobs.staging.stage import stage

        stage(self.workspace(out / "cache", out / "catalog"), self.spec(prefix))


class Known(Stagegate):
    """Staging a version that another node staged before."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.versions: dict[str, Any] = {}
        self.first = Path(options.pop("first"))

    def prepare(self, key: str) -> None:
        """Stage it on the first node, unless that was done."""
        if key not in self.versions:
            self.dataset = f"measured-{len(self.versions)}"
            self.versions[key] = self.stage(key, self.first / "cache", self.first / "catalog")

    def fetch(self, key: str, out: Path) -> Path:
        from prefect_stagegate.jobs.staging.stage import stage
        from prefect_stagegate.model import Address

        version = self.versions[key]
        brought = stage(self.workspace(out / "cache", self.catalog(out)), Address(version.dataset, version.digest))
        return self.file(brought.path)

    def catalog(self, out: Path) -> Path:
        del out
        return self.first / "catalog"

    def fetch_all(self, prefix: str, out: Path) -> None:
        from prefect_stagegate.jobs.staging.stage import stage
        from prefect_stagegate.model import Address

        del prefix
        stage(self.workspace(out / "cache", self.first / "catalog"), Address(self.dataset, "latest"))


TOOLS: dict[str, type[Tool]] = {
    "blind": Blind,
    "obstore": Obstore,
    "s3fs": S3fs,
    "msc": Msc,
    "aws": Aws,
    "hub": Hub,
    "stagegate": Stagegate,
    "known": Known,
}


def serve(tool: Tool) -> None:
    """Answer each line; what a tool prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        out, answer = Path(request["out"]), {"error": "", "file": ""}
        try:
            if request["job"] == "fetch":
                answer["file"] = str(tool.fetch(request["key"], out))
            elif request["job"] == "verify":
                tool.verify(request["key"], out)
            else:
                tool.prepare(request["key"])
        except NotImplementedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a tool raises, it noticed
            answer["error"] = f"{type(error).__name__}: {error}"[:500] or "an error"
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    name, options, *rest = sys.argv[1:]
    tool = TOOLS[name](json.loads(options))
    if rest:
        tool.fetch_all(rest[0], Path(rest[1]))
    else:
        serve(tool)
    sys.stdout.flush()
    os._exit(0)  # obstore's coroutines abort one process in a hundred as its interpreter ends


if __name__ == "__main__":
    main()
