"""``make demo``: start a node, send it a good and a motion-ruined simulated study over C-STORE, show what comes back.

Everything happens on this machine under ``demo-data/``, with nobody's data: the studies are simulated. The PACS that
receives the results is a small storage SCP in this script.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, LabelMapSegmentationStorage, SegmentationStorage

FOLDER = Path("demo-data")
PACSGATE = Path(sys.executable).parent / "pacsgate"
TIMEOUT_S = 180
STUDIES = {"good": [], "motion-ruined": ["--artifact", "motion", "--severity", "4"]}


def say(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def pacsgate(*arguments: str) -> Any:
    """Run a pacsgate command with --json and return its document."""
    run = subprocess.run([PACSGATE, *arguments, "--json"], capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"pacsgate {' '.join(arguments)} failed:\n{run.stderr}")
    return json.loads(run.stdout)


def free_port() -> int:
    """A port nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pacs(folder: Path, port: int) -> Iterator[None]:
    """A storage SCP that writes what it receives to ``folder``, named by order of arrival."""
    folder.mkdir(parents=True)

    def store(event: evt.Event) -> int:
        number = len(list(folder.iterdir()))
        (folder / f"{number:02d}-{event.dataset.Modality.lower()}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE("DEMOPACS")
    for sop_class in (Comprehensive3DSRStorage, SegmentationStorage, LabelMapSegmentationStorage):
        entity.add_supported_context(sop_class)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield
    finally:
        server.shutdown()


@contextmanager
def node(config: Path) -> Iterator[None]:
    """A running node; its log is in demo-data/node.log."""
    with (FOLDER / "node.log").open("wb") as log:
        process = subprocess.Popen([PACSGATE, "up", "--config", config], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def write_config(dicom_port: int, pacs_port: int) -> Path:
    """A configuration with free ports and short waits."""
    config = FOLDER / "demo.toml"
    config.write_text(f"""
[dicom]
port = {dicom_port}
[web]
port = {free_port()}
[storage]
data_dir = "{(FOLDER / "node").absolute()}"
[completion]
series_quiet_s = 1
study_quiet_s = 2
[[destinations]]
name = "demo-pacs"
ae_title = "DEMOPACS"
host = "127.0.0.1"
port = {pacs_port}
""")
    return config


def wait_for_port(port: int) -> None:
    """Until the node listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("the node did not start; see demo-data/node.log")


def wait_for_results(study_uid: str, config: Path) -> dict[str, Any]:
    """Until every result of the study is delivered; returns the study as the node shows it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        shown = pacsgate("studies", "show", study_uid, "--config", str(config))
        deliveries = [d["state"] for item in shown["objects"] for d in item["deliveries"]]
        if shown["state"] == "failed":
            sys.exit(f"study {study_uid} failed: {shown['failure']}")
        if deliveries and all(state == "delivered" for state in deliveries):
            return dict(shown)
        time.sleep(0.5)
    sys.exit(f"no results for study {study_uid} after {TIMEOUT_S} s; see demo-data/node.log")


def show(name: str, shown: dict[str, Any], seconds: float) -> None:
    """Print a study's verdict and results."""
    say(f"\n{name} study {shown['study_instance_uid']}")
    say(f"  verdict    {shown['verdict']}: {shown['reason']}")
    for series in shown["assessment"]["series"]:
        score = "" if series["score"] is None else f" score {series['score']:.2f}"
        say(f"  {series['role']:<14} {series['verdict']}{score}  {series['reason']}")
    detection = shown["detection"]
    say(f"  detection  {detection['state']}: {detection['reason']}")
    for item in shown["objects"]:
        say(f"  returned   {item['kind']}  {item['sop_instance_uid']}")
    say(f"  {seconds:.1f} s from the last image to the results at the PACS (2 s of them waiting for silence)")


def main() -> None:
    """The demonstration."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    say("Simulating a good and a motion-ruined prostate mpMRI study ...")
    for name, options in STUDIES.items():
        pacsgate("simulate", "--out", str(FOLDER / "sent" / name), "--seed", str(len(name)), *options)
    dicom_port, pacs_port = free_port(), free_port()
    config = write_config(dicom_port, pacs_port)
    with pacs(FOLDER / "pacs", pacs_port), node(config):
        wait_for_port(dicom_port)
        say(f"Node PACSGATE listens on 127.0.0.1:{dicom_port}; sending both studies ...")
        uids, sent_at = {}, {}
        for name in STUDIES:
            pacsgate("send", str(FOLDER / "sent" / name), "--to", f"PACSGATE@127.0.0.1:{dicom_port}")
            sent_at[name] = time.monotonic()
            uids[name] = pacsgate("studies", "list", "--limit", "1", "--config", str(config))[0]["study_instance_uid"]
        for name in STUDIES:
            shown = wait_for_results(uids[name], config)
            show(name, shown, time.monotonic() - sent_at[name])
    say(f"\nThe returned DICOM objects are in {FOLDER / 'pacs'}, the node's log in {FOLDER / 'node.log'}.")
    say("Research use only. Not for diagnosis.")


if __name__ == "__main__":
    main()
