"""What pods do with object storage, on real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from click.testing import CliRunner

from tamis.cli import main
from tamis.cluster.fetching import FetchSettings, fetch
from tamis.cluster.places import is_examined
from tamis.cluster.probe import probe
from tamis.cluster.waiting import wait_for
from tamis.core.artifacts import Manifest
from tamis.core.errors import ArtifactError, StorageError
from tamis.core.settings import StageSettings, parse
from tamis.core.steps import Input, Step, run_step
from tamis.core.storage import connecting, files_below, locate, write_bytes
from tamis.core.storage.errors import ACTIONS
from tamis.finetuning.output import finished_model
from tamis.finetuning.settings import FinetuningSettings
from tamis_pipelines.checks.places import check_places
from tamis_pipelines.settings import load_run
from tests.storage.seaweed import Seaweed


class Words(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1
    text: str = "hello"


def write(step: Step[Words]) -> None:
    (step.out / "words.txt").write_text(step.settings.text)


def fetched(uri: str, folder: Path) -> None:
    source = {"kind": "storage", "uri": uri, "folder": str(folder)}
    fetch(parse(FetchSettings, {"models": [source]}, where="models.yaml"))


def test_the_wait_ends_with_the_artifact(remote: str) -> None:
    run_step("test", "pool", Words(), write, out=f"{remote}/pool")
    wait_for([f"{remote}/pool"], timeout=10, every=0.1)


def test_the_wait_ends_with_the_reason_when_credentials_are_wrong(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_credentials(monkeypatch)
    result = CliRunner().invoke(main, ["wait", f"{remote}/pool", "--timeout", "60"])
    assert result.exit_code == 78
    assert ACTIONS[remote[:2]] in result.output


def wrong_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")


def test_refused_credentials_are_permanent_and_a_missing_bucket_or_server_is_not(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError) as no_bucket:
        probe(f"{remote[:5]}no-such-bucket/x")
    wrong_credentials(monkeypatch)
    with pytest.raises(StorageError) as refused:
        probe(remote)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/devstoreaccount1")
    monkeypatch.setattr(connecting, "ATTEMPTS", 1)
    with pytest.raises(StorageError) as absent:
        probe(remote)
    assert [error.value.exit_code for error in (no_bucket, refused, absent)] == [1, 78, 1]


def train(selection: str, out: str, **settings: Any) -> Manifest | None:
    return finished_model(FinetuningSettings(model="some/model", **settings), selection=selection, out=out)


def subset(out: str) -> None:
    """A finished subset at `out`."""
    run_step("selection", "selection", Words(), write, out=out, name="ds2")


def test_before_a_training_its_output_is_examined(remote: str) -> None:
    selection, out = f"{remote}/selection", f"{remote}/model"
    with pytest.raises(ArtifactError) as missing:
        train(selection, out)
    subset(selection)
    assert train(selection, out) is None
    assert [str(file) for file in files_below(locate(remote)) if "selection" not in str(file)] == []
    made = run_step(
        "finetuning",
        "model",
        FinetuningSettings(model="some/model"),
        lambda step: (step.out / "weights").write_text("w"),  # type: ignore[arg-type]
        out=out,
        inputs={"selection": Input(selection, "selection")},
        files={"model": "some/model@main"},
        name="ds2",
    )
    assert train(selection, out) == made
    with pytest.raises(ArtifactError) as other:
        train(selection, out, seed=1)
    assert (missing.value.exit_code, other.value.exit_code) == (78, 78)


def test_trainjob_starts_nothing_where_the_model_is_finished_or_its_place_is_refused(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/no/such/file")  # whoever asks the cluster fails with the code `settings`
    places = ("--selection", f"{remote}/selection", "--out", f"{remote}/model", "--set", "model=some/model")
    subset(f"{remote}/selection")
    unexamined = CliRunner().invoke(main, ["trainjob", *places])
    assert "code:    settings" in unexamined.output
    run_step("test", "model", Words(), write, out=f"{remote}/model")
    other = CliRunner().invoke(main, ["trainjob", *places])
    assert (other.exit_code, "code:    artifact" in other.output) == (78, True)
    wrong_credentials(monkeypatch)
    refused = CliRunner().invoke(main, ["trainjob", *places])
    assert (refused.exit_code, "code:    storage" in refused.output) == (78, True)
    assert "code:    settings" in CliRunner().invoke(main, ["trainjob", *places, "--force"]).output


def test_submit_sends_nothing_where_a_place_for_results_is_refused(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rater = {"name": "mini", "backend": {"kind": "openai", "model": "m"}, "store": f"{remote}/ratings"}
    settings = {
        "work_dir": str(tmp_path),
        "pool": {"sources": [{"name": "facts", "path": "s3://data/facts.jsonl"}]},
        "raters": [rater],
        "subsets": [{"name": "best", "strategy": "ds2", "size": 10}],
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    parsed = load_run(file)
    check_places(parsed, root=f"{remote}/root", outcomes=f"{remote}/outcomes")
    assert files_below(locate(remote)) == []
    wrong_credentials(monkeypatch)
    refused = CliRunner().invoke(main, ["submit", str(file), "--host", "http://127.0.0.1:9"])
    assert (refused.exit_code, "raters.mini.store" in refused.output) == (78, True)
    for option in ("root", "outcomes"):
        with pytest.raises(StorageError, match=f"--{option}"):
            check_places(parsed, **{option: f"{remote}/there"})
    check_places(parsed.model_copy(update={"raters": ()}), root="minio://mlpipeline/v2")  # Kubeflow's own name


def test_what_cannot_be_examined_from_here_is_left_to_the_pods(
    remote: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/devstoreaccount1")
    assert not is_examined(f"{remote}/model", "--out")
    assert [record.levelname for record in caplog.records if "--out" in record.getMessage()] == ["WARNING"]
    assert not is_examined("/cache/models/ds2", "--out")


def test_a_probe_leaves_nothing_behind(remote: str) -> None:
    probe(remote)
    assert files_below(locate(remote)) == []


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.usefixtures("s3")
def test_a_probe_makes_the_bucket_once(s3_server: Seaweed, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")  # the server may be busy with a bucket that it has just made
    for _ in range(2):
        probe(f"s3://tamis-made-by-probe-{region}/x", create_bucket=True)
    made = [bucket["Name"] for bucket in s3_server.client().list_buckets()["Buckets"]]
    assert made.count(f"tamis-made-by-probe-{region}") == 1


def test_a_probe_of_a_missing_bucket_is_an_error(remote: str) -> None:
    with pytest.raises(StorageError, match=r"NoSuchBucket|ContainerNotFound"):
        probe(f"{remote[:5]}tamis-no-such-bucket/x")


def test_a_model_is_copied_once_and_a_torn_file_again(
    remote: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_bytes(locate(f"{remote}/model/config.json"), b"{}")
    write_bytes(locate(f"{remote}/model/sub/weights.bin"), b"weights")
    caplog.set_level("INFO")
    fetched(f"{remote}/model", tmp_path / "model")
    assert (tmp_path / "model/config.json").read_bytes() == b"{}"
    assert (tmp_path / "model/sub/weights.bin").read_bytes() == b"weights"
    (tmp_path / "model/sub/weights.bin").write_bytes(b"wei")
    fetched(f"{remote}/model", tmp_path / "model")
    assert (tmp_path / "model/sub/weights.bin").read_bytes() == b"weights"
    assert "2 files" in caplog.messages[-2]
    assert "2 of them downloaded now" in caplog.messages[-2]
    assert "1 of them downloaded now" in caplog.messages[-1]


def test_an_empty_prefix_is_an_error(remote: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there are no files"):
        fetched(f"{remote}/nothing", tmp_path / "model")
