"""The STAGEGATE_* settings: defaults, units, bounds, and mistakes that don't go unnoticed."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.doors import own_plugins
from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import ExitCode, UsageError
from prefect_stagegate.jobs.gating import validate
from prefect_stagegate.model.settings import Settings, declared_settings, settings_in
from prefect_stagegate.transport.transfer import Limits
from prefect_stagegate.validations.worker.process_limits import ValidationLimits


def test_without_variables_everything_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    settings = Settings.from_environment({})

    assert settings == Settings(
        cache=Path("/home/me/.cache/stagegate"),
        catalog="/home/me/.local/share/stagegate/catalog",
        identity="",
        node=platform.node(),
        image_digest="",
        variables=(),
        durability=Durability.BATCH,
        max_size=None,
        free_floor=0.05,
        free_warning=0.15,
        expiry_warning=0.2,
        verify_rate=None,
        allowed_hosts=(),
        max_entries=10_000_000,
        slot_wait=3600.0,
        signing_key=None,
        verification_keys=(),
        reports=None,
        reports_url="",
        pages_url="",
    )
    assert settings.of(Limits) == Limits(
        in_flight=64,
        part=8 * 2**20,
        memory=64 * 2**20,
        retries=400,
        bandwidth=None,
        connections=None,
        idle=30.0,
    )
    assert settings.of(ValidationLimits) == ValidationLimits(
        seconds=3600.0,
        memory=8 * 2**30,
        spill=64 * 2**30,
        scratch=None,
    )


def test_the_user_s_folders_are_followed_when_they_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    settings = Settings.from_environment({"XDG_CACHE_HOME": "/fast", "XDG_DATA_HOME": "relative"})

    assert settings.cache == Path("/fast/stagegate")
    assert settings.catalog == "/home/me/.local/share/stagegate/catalog"


def test_every_setting_can_be_set() -> None:
    settings = Settings.from_environment(
        {
            "STAGEGATE_CACHE": "/nvme/cache",
            "STAGEGATE_CATALOG": "s3://lake/catalog",
            "STAGEGATE_IDENTITY": "nightly",
            "STAGEGATE_NODE": "gpu-2",
            "STAGEGATE_IMAGE_DIGEST": "sha256:" + "1" * 64,
            "STAGEGATE_VARIABLES": "RAY_*, SEED",
            "STAGEGATE_OBJECTS_IN_FLIGHT": "16",
            "STAGEGATE_PART_SIZE": "16MiB",
            "STAGEGATE_MEMORY": "1.5GB",
            "STAGEGATE_DURABILITY": "full",
            "STAGEGATE_MAX_SIZE": "2TiB",
            "STAGEGATE_FREE_FLOOR": "12.5%",
            "STAGEGATE_FREE_WARNING": "100%",
            "STAGEGATE_EXPIRY_WARNING": "50%",
            "STAGEGATE_VERIFY_RATE": "200MB/s",
            "STAGEGATE_RETRIES": "0",
            "STAGEGATE_BANDWIDTH": "100MB/s",
            "STAGEGATE_CONNECTIONS": "8",
            "STAGEGATE_IDLE_TIMEOUT": "7.5",
            "STAGEGATE_ALLOWED_HOSTS": "metadata.internal, 169.254.1.1",
            "STAGEGATE_MAX_ENTRIES": "20000000",
            "STAGEGATE_SLOT_WAIT": "60",
            "STAGEGATE_VALIDATION_MEMORY": "24GiB",
            "STAGEGATE_VALIDATION_TIMEOUT": "7200",
            "STAGEGATE_VALIDATION_SCRATCH": "/nvme/scratch",
            "STAGEGATE_VALIDATION_SPILL": "1TiB",
            "STAGEGATE_SIGNING_KEY": "/etc/stagegate/key.pem",
            "STAGEGATE_VERIFICATION_KEYS": f"ed25519:{'0' * 64}, ci.pub.pem",
            "STAGEGATE_REPORTS": "/srv/reports",
            "STAGEGATE_REPORTS_URL": "https://ci.example.org/reports",
            "STAGEGATE_PAGES_URL": "https://data.example.org/stagegate",
            "PATH": "/bin",
        }
    )

    assert replace(settings, others=()) == Settings(
        cache=Path("/nvme/cache"),
        catalog="s3://lake/catalog",
        identity="nightly",
        node="gpu-2",
        image_digest="sha256:" + "1" * 64,
        variables=("RAY_*", "SEED"),
        durability=Durability.FULL,
        max_size=2 * 2**40,
        free_floor=0.125,
        free_warning=1.0,
        expiry_warning=0.5,
        verify_rate=200_000_000,
        allowed_hosts=("metadata.internal", "169.254.1.1"),
        max_entries=20_000_000,
        slot_wait=60.0,
        signing_key=Path("/etc/stagegate/key.pem"),
        verification_keys=("ed25519:" + "0" * 64, "ci.pub.pem"),
        reports=Path("/srv/reports"),
        reports_url="https://ci.example.org/reports",
        pages_url="https://data.example.org/stagegate",
    )
    assert settings.of(Limits) == Limits(
        in_flight=16,
        part=16 * 2**20,
        memory=1_500_000_000,
        retries=0,
        bandwidth=100_000_000,
        connections=8,
        idle=7.5,
    )
    assert settings.of(ValidationLimits) == ValidationLimits(
        seconds=7200.0,
        memory=24 * 2**30,
        spill=2**40,
        scratch="/nvme/scratch",
    )


def test_folders_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)

    settings = Settings.from_environment({"STAGEGATE_CACHE": "here", "STAGEGATE_CATALOG": "~/catalog"})

    assert (settings.cache, settings.catalog) == (tmp_path / "here", "/home/me/catalog")


def test_an_empty_variable_means_the_default() -> None:
    assert Settings.from_environment({"STAGEGATE_RETRIES": "", "STAGEGATE_IDENTITY": ""}).of(Limits).retries == 400


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("STAGEGATE_OBJECTS_IN_FLIGHT", "0", "'0' is not a whole number from 1 to 1024"),
        ("STAGEGATE_OBJECTS_IN_FLIGHT", "1025", "from 1 to 1024"),
        ("STAGEGATE_OBJECTS_IN_FLIGHT", "many", "from 1 to 1024"),
        ("STAGEGATE_OBJECTS_IN_FLIGHT", "٣", "from 1 to 1024"),
        ("STAGEGATE_PART_SIZE", "8 parts", "'8 parts' is not a size"),
        ("STAGEGATE_PART_SIZE", "1kB", "'1kB' is not between 64KiB and 1GiB"),
        ("STAGEGATE_PART_SIZE", "2GiB", "is not between 64KiB and 1GiB"),
        ("STAGEGATE_MEMORY", "1024", "is not between 1MiB and 1TiB"),
        ("STAGEGATE_MEMORY", "2MiB", "is less than STAGEGATE_PART_SIZE"),
        ("STAGEGATE_FREE_FLOOR", "51%", "'51%' is not a percentage from 0% to 50%"),
        ("STAGEGATE_FREE_WARNING", "101%", "'101%' is not a percentage from 0% to 100%"),
        ("STAGEGATE_FREE_FLOOR", "nan", "is not a percentage"),
        ("STAGEGATE_FREE_FLOOR", "-1", "is not a percentage"),
        ("STAGEGATE_RETRIES", "-1", "from 0 to 100000"),
        ("STAGEGATE_RETRIES", "1.5", "from 0 to 100000"),
        ("STAGEGATE_IDLE_TIMEOUT", "0", "'0' is not a number of seconds from 1 to 3600"),
        ("STAGEGATE_IDLE_TIMEOUT", "inf", "from 1 to 3600"),
        ("STAGEGATE_IDLE_TIMEOUT", "soon", "from 1 to 3600"),
        ("STAGEGATE_NODE", "../gpu-1", "is no name of a node"),
        ("STAGEGATE_NODE", "..", "is no name of a node"),
        ("STAGEGATE_PAGES_URL", "https://me:secret@pages.example.org", "holds credentials"),
        ("STAGEGATE_CACHE", "~nobody-of-this-name/cache", "home"),
        ("STAGEGATE_VOLUMES", "/nvme1/cache", "a node has one cache: join its disks by RAID or LVM"),
    ],
)
def test_a_bad_value_is_told_with_its_variable(variable: str, value: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({variable: value})

    assert f"{variable}: " in str(caught.value)
    assert what in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_misspelt_variable_is_told_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"STAGEGATE_CASHE: no setting has this name; did you mean 'STAGEGATE_CACHE'\?"
    ):
        Settings.from_environment({"STAGEGATE_CASHE": "/nvme"})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({"STAGEGATE_RETRIES": "x", "STAGEGATE_MEMORY": "y", "STAGEGATE_X": "z"})

    assert all(name in str(caught.value) for name in ("STAGEGATE_RETRIES: ", "STAGEGATE_MEMORY: ", "STAGEGATE_X: "))


def test_every_setting_is_documented() -> None:
    settings = [setting for declared in declared_settings(own_plugins()) for setting in settings_in(declared)]
    assert len({setting.variable for setting in settings}) == len(settings) <= 52
    assert all(setting.values and setting.meaning.endswith(".") for setting in settings)
    assert len(settings_in(Settings)) <= 21


def test_settings_load_nothing_beyond_the_standard_library() -> None:
    code = (
        "import sys; from prefect_stagegate.model.settings import Settings;"
        "Settings.from_environment({'STAGEGATE_RETRIES': '0', 'STAGEGATE_DURABILITY': 'full'});"
        "foreign = {m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names);"
        "print(*sorted(foreign))"
    )
    before = {"__main__", "sitecustomize", "usercustomize"}

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    foreign = {name for name in ran.stdout.split() if not name.startswith(("_", "distutils"))} - before
    assert foreign == {"prefect_stagegate"}


@pytest.mark.parametrize(("group", "memory"), [(2**31, 2**31), (2**40, 2**33), ("unlimited", 2**33)])
def test_validation_takes_its_groups_memory_at_most(
    group: int | str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "capture_limits", lambda: {"memory": group})
    assert validate.limits_of(Settings.from_environment({})).memory == memory
