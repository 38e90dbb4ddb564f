"""What a SQL source's URL and options are taken for, and how a result's columns are, before a server is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prefect_stagegate.errors import MissingExtra, SpecError, UsageError
from prefect_stagegate.plugins.sql.request import connection_uri, read_request
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import load_spec


def test_urls_and_options_are_judged_before_a_server_is_asked() -> None:
    for url, options, said in (
        ("postgresql://h/db", {}, "names no table"),
        ("postgresql://me:pw@h/db#t", {}, "holds a password"),
        ("postgresql://h/db?password=x#t", {}, "can't have password="),
        ("postgresql://h/db?hostaddr=169.254.169.254#t", {}, "can't have hostaddr="),
        ("postgresql://h/db?host=other#t", {}, "can't have host=other"),
        ("postgresql://127.0.0.1,169.254.169.254/db#t", {}, "metadata addresses are blocked"),
        ("postgresql://h/db#a.b.c", {}, "no table's name"),
        ("postgresql://h/db#t", {"orderby": "x"}, "'orderby' is no option of a SQL source .*Did you mean 'order_by'"),
        ("postgresql://h/db#t", {"partitions": 4}, "needs `partition_by:`"),
        ("postgresql://h/db#t", {"partitions": 0, "partition_by": "x"}, "no number between"),
        ("postgresql://h/db#t", {"numeric": "decimal(40, 2)"}, "is no type"),
    ):
        with pytest.raises(UsageError, match=said):
            open_source(url, options)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t", ("", "t")),
        ("nyc.Tail%20s", ("nyc", "Tail s")),
        ('"a.b"."c""d"', ("a.b", 'c"d')),
        ("%22a.b%22", ("", "a.b")),
    ],
)
def test_a_table_is_named_as_it_is_written(name: str, table: tuple[str, str]) -> None:
    assert read_request(f"postgresql://h/db#{name}", {}).table == table


def test_shown_url_has_no_user_and_identities_differ_by_query() -> None:
    request = read_request(
        "postgresql://me@h:5433/db?sslmode=require#t", {"query": "select 1 as x", "password": "hidden"}
    )
    other = read_request("postgresql://me@h:5433/db?sslmode=require#t", {"query": "select 2 as x"})
    assert request.url == "postgresql://h:5433/db#t"
    assert request.identity.startswith(request.url)
    assert request.identity != other.identity
    assert "hidden" not in repr(request)


def test_libpq_uri_escapes_the_login_and_sets_a_timeout() -> None:
    uri = connection_uri("postgresql://me@h/db?sslmode=require#t", {"password": "p&w=/?#"}, idle=30)
    assert uri.startswith("postgresql://me@h/db?")
    assert "&sslmode=require&" in uri
    assert uri.endswith("&password=p%26w%3D%2F%3F%23")
    assert "tcp_user_timeout=30000" in uri


def test_a_spec_takes_a_user_and_refuses_a_password(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = "stagegate: 1\ndataset: d\nsources:\n  - {url: 'postgresql://%s@h/db#nyc.flights'}\n"
    spec.write_text(text % "me")
    assert load_spec(spec, known_checks={}).sources[0].url == "postgresql://me@h/db#nyc.flights"
    spec.write_text(text % "me:secret")
    with pytest.raises(SpecError, match="a password"):
        load_spec(spec, known_checks={})


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("postgresql://h/db#t", "adbc_driver_postgresql", "sql"), ("hdfs://h:1/x", "hdfs_native", "hdfs")],
)
def test_an_absent_client_is_told_by_its_extra(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"prefect-stagegate\[{extra}\]"):
        list(open_source(url).list())
