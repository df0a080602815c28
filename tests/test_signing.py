"""Signatures: where a key is set, a model that was not signed by it gets in nowhere, at no moment."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from unittest import mock

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from test_server import BODY, Server, replace

from churn_mlops.data import generate_sample_data
from churn_mlops.formula.file import load, to_bytes
from churn_mlops.formula.formula import Formula
from churn_mlops.models import ChurnModel, ChurnPredictor
from churn_mlops.models.signing import SignatureError, sign_model, signature_path, verified_bytes
from churn_mlops.serving.model_holder import ModelHolder, ModelUnavailableError
from churn_mlops.settings import SettingsError, load_settings

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def write_key(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b""
) -> Path:
    """Write a pair of keys, NAME.key and NAME.pub; return the public one."""
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(PEM, PKCS8, lock))
    public = folder / f"{name}.pub"
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def new_key(folder: Path, name: str) -> Path:
    return write_key(folder, name, ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def formula() -> Formula:
    table = generate_sample_data(400)
    model = ChurnModel("logistic_regression").fit(table.drop(columns=["customer_id", "churn"]), table["churn"])
    return model.formula_


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path, "ours")


@pytest.fixture
def signed(tmp_path: Path, key: Path, formula: Formula) -> Path:
    """Save a model and sign it."""
    path = formula.save(tmp_path / "models" / "churn-model.safetensors")
    sign_model(path, key.with_suffix(".key"))
    return path


def forged(formula: Formula) -> bytes:
    """Change one number of a model, and write it with the digest that belongs to it."""
    return to_bytes(formula.updated(threshold=0.999))


def refusal(path: Path, key: Path) -> str:
    with pytest.raises(SignatureError) as caught:
        ChurnPredictor(path, public_key=key)
    return str(caught.value)


def test_a_signed_model_answers_as_it_did(signed: Path, key: Path, formula: Formula) -> None:
    predictor = ChurnPredictor(signed, public_key=key)
    assert verified_bytes(signed, key) == signed.read_bytes() == to_bytes(formula)
    assert predictor.predict(predictor.example)["churn_probability"] == formula.probability(predictor.example)


def test_a_forged_file_with_a_valid_digest_is_refused(signed: Path, key: Path, formula: Formula) -> None:
    signed.write_bytes(forged(formula))
    assert load(signed).threshold == 0.999
    assert f"{signed} is not the file that was signed" in refusal(signed, key)


def test_a_model_without_a_signature_is_refused(signed: Path, key: Path) -> None:
    signature_path(signed).unlink()
    assert f"{signed} is not signed: there is no {signature_path(signed)}" in refusal(signed, key)


def test_a_model_signed_by_another_key_is_refused(signed: Path, key: Path, tmp_path: Path) -> None:
    other = new_key(tmp_path, "theirs")
    sign_model(signed, other.with_suffix(".key"))
    assert f"was signed by another key than the one that belongs to {key}" in refusal(signed, key)


def test_a_forger_cannot_claim_the_key_of_somebody_else(
    signed: Path, key: Path, formula: Formula, tmp_path: Path
) -> None:
    hint = json.loads(signature_path(signed).read_text())["verificationMaterial"]
    signed.write_bytes(forged(formula))
    place = sign_model(signed, new_key(tmp_path, "theirs").with_suffix(".key"))
    place.write_text(json.dumps({**json.loads(place.read_text()), "verificationMaterial": hint}))
    assert f"was signed by another key than the one that belongs to {key}" in refusal(signed, key)


def test_the_signature_of_another_file_is_refused(signed: Path, key: Path, formula: Formula, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(forged(formula))
    shutil.copy(sign_model(other, key.with_suffix(".key")), signature_path(signed))
    assert "is of another file" in refusal(signed, key)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff\xfe", b'{"verificationMaterial": {}}', b"[" * 100_000, b"null"],
    ids=["empty", "object", "list", "bytes", "part", "deep", "null"],
)
def test_what_is_no_signature_is_refused_in_one_line(signed: Path, key: Path, content: bytes) -> None:
    signature_path(signed).write_bytes(content)
    assert refusal(signed, key) == f"{signature_path(signed)} is not a signature that can be read: sign the model again"


def test_a_byte_changed_anywhere_in_a_signature_changes_nothing_or_is_refused(signed: Path, key: Path) -> None:
    place, model = signature_path(signed), signed.read_bytes()
    whole = place.read_bytes()
    for at in np.random.default_rng(0).choice(len(whole), 60, replace=False):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with suppress(SignatureError):
            assert verified_bytes(signed, key) == model


def test_a_signature_of_gigabytes_is_not_read(signed: Path, key: Path) -> None:
    with signature_path(signed).open("r+b") as file:
        file.truncate(2**33)
    assert "is larger than any signature: 8,589,934,592 bytes" in refusal(signed, key)


def test_a_missing_model_is_a_missing_file_with_a_key_too(key: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no model file"):
        ChurnPredictor(tmp_path / "none", public_key=key)


# --- keys ---------------------------------------------------------------------------------------------------------


def test_a_missing_public_key_refuses_every_model(signed: Path, tmp_path: Path) -> None:
    assert f"the public key {tmp_path / 'none.pub'} cannot be read: No such file" in refusal(
        signed, tmp_path / "none.pub"
    )


@pytest.mark.parametrize("kind", ["text", "private", "rsa", "k1"])
def test_what_is_no_public_key_refuses_every_model(signed: Path, key: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "text.pub").write_text("not a key")
    shutil.copy(key.with_suffix(".key"), tmp_path / "private.pub")
    write_key(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    write_key(tmp_path, "k1", ec.generate_private_key(ec.SECP256K1()))
    assert f"{kind}.pub is not a public key of the curve P-256" in refusal(signed, tmp_path / f"{kind}.pub")


@pytest.mark.parametrize("kind", ["none", "public", "locked"])
def test_what_is_no_private_key_signs_nothing(signed: Path, key: Path, tmp_path: Path, kind: str) -> None:
    before = signature_path(signed).read_bytes()
    shutil.copy(key, tmp_path / "public.key")
    write_key(tmp_path, "locked", ec.generate_private_key(ec.SECP256R1()), b"password")
    with pytest.raises(SignatureError, match=r"cannot be read: No such file|is not a private key of the curve P-256"):
        sign_model(signed, tmp_path / f"{kind}.key")
    assert signature_path(signed).read_bytes() == before


def test_what_is_no_model_is_not_signed(key: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(ValueError, match="is not a churn_mlops model file"):
        sign_model(tmp_path / "notes.txt", key.with_suffix(".key"))
    assert not signature_path(tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_longer_keys_sign_too(signed: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    public = write_key(tmp_path, "long", ec.generate_private_key(curve))
    sign_model(signed, public.with_suffix(".key"))
    assert verified_bytes(signed, public) == signed.read_bytes()


def test_a_key_made_by_the_commands_of_the_chapter_signs(signed: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    page = (Path(__file__).parents[1] / "nbs/models/signing.ipynb").read_text(encoding="utf-8")
    commands = re.findall(r'"(openssl [^#\\"]+?) *#', page)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    sign_model(signed, tmp_path / "churn.key")
    assert verified_bytes(signed, tmp_path / "churn.pub") == signed.read_bytes()


def test_the_command_of_the_library_reads_our_signatures_and_we_read_its(signed: Path, key: Path) -> None:
    program = [sys.executable, "-m", "model_signing"]
    options = [signed, "--signature", signature_path(signed)]
    subprocess.run([*program, "verify", "key", *options, "--public_key", key], check=True, capture_output=True)
    signature_path(signed).unlink()
    private = key.with_suffix(".key")
    subprocess.run([*program, "sign", "key", *options, "--private_key", private], check=True, capture_output=True)
    assert verified_bytes(signed, key) == signed.read_bytes()


def test_without_the_extra_a_key_is_an_error_that_says_how_to_install_it(signed: Path, key: Path) -> None:
    code = "import sys; sys.modules['model_signing'] = None\n"
    code += "import importlib.util as u; found = u.find_spec\n"
    code += "u.find_spec = lambda name, *rest: None if name == 'model_signing' else found(name, *rest)\n"
    code += "from churn_mlops import ChurnPredictor; ChurnPredictor(sys.argv[1], public_key=sys.argv[2])"
    done = subprocess.run([sys.executable, "-c", code, signed, key], capture_output=True, text=True)
    assert 'needs model_signing: pip install "churn_mlops[sign]"' in done.stderr.splitlines()[-1]


def test_without_a_key_the_library_is_not_imported(signed: Path, tmp_path: Path) -> None:
    code = "import sys; from churn_mlops import ChurnPredictor; ChurnPredictor(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, signed], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"model_signing", "OpenSSL", "cryptography", "pydantic_settings", "churn_mlops.settings"})


# --- links and races ----------------------------------------------------------------------------------------------


def test_a_link_leads_to_the_model_and_to_its_signature(
    signed: Path, key: Path, formula: Formula, tmp_path: Path
) -> None:
    link = tmp_path / "current.safetensors"
    link.symlink_to(signed)
    assert verified_bytes(link, key) == signed.read_bytes()
    unsigned = tmp_path / "unsigned.safetensors"
    unsigned.write_bytes(forged(formula))
    shutil.copy(signature_path(signed), f"{link}.sig")
    link.unlink()
    link.symlink_to(unsigned)
    assert f"there is no {unsigned}.sig" in refusal(link, key)


def test_a_signature_may_be_a_link(signed: Path, key: Path, tmp_path: Path) -> None:
    signature_path(signed).rename(tmp_path / "elsewhere.sig")
    signature_path(signed).symlink_to(tmp_path / "elsewhere.sig")
    assert verified_bytes(signed, key) == signed.read_bytes()


def test_a_file_exchanged_after_it_was_read_does_not_get_in(signed: Path, key: Path, formula: Formula) -> None:
    from model_signing import verifying

    verify = verifying.Config.verify

    def exchange_and_verify(config: object, model: Path, signature: Path) -> None:
        replace(signed, forged(formula))
        verify(config, model, signature)
        replace(signed, forged(formula))

    with mock.patch.object(verifying.Config, "verify", exchange_and_verify):
        predictor = ChurnPredictor(signed, public_key=key)
    assert predictor.formula.threshold == formula.threshold
    assert load(signed).threshold == 0.999, "the file on the disk is the forged one by now"


def test_a_file_exchanged_all_the_time_never_gets_in(signed: Path, key: Path, formula: Formula) -> None:
    ours, theirs, done = signed.read_bytes(), forged(formula), threading.Event()

    def exchange() -> None:
        while not done.is_set():
            replace(signed, theirs)
            replace(signed, ours)

    thread = threading.Thread(target=exchange)
    thread.start()
    outcomes = set()
    try:
        for _ in range(60):
            try:
                outcomes.add(ChurnPredictor(signed, public_key=key).formula.threshold)
            except SignatureError:
                outcomes.add("refused")
    finally:
        done.set()
        thread.join()
    assert outcomes <= {formula.threshold, "refused"}


# --- settings -----------------------------------------------------------------------------------------------------


def test_a_predictor_takes_the_key_of_the_settings(
    signed: Path, key: Path, formula: Formula, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signed.write_bytes(forged(formula))
    assert ChurnPredictor(signed).formula.threshold == 0.999, "there is no key"
    (tmp_path / "settings.ini").write_text(f"[serving]\npublic_key = {key.name}\n")
    with pytest.raises(SignatureError):
        ChurnPredictor(signed)
    assert ChurnPredictor(signed, public_key="").formula.threshold == 0.999, "none is wanted"


def test_a_predictor_takes_the_key_of_the_environment(
    signed: Path, key: Path, formula: Formula, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signed.write_bytes(forged(formula))
    monkeypatch.setenv("churn_serving__public_key", str(key))
    with pytest.raises(SignatureError):
        ChurnPredictor(signed)


def test_settings_that_cannot_be_read_load_no_model(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.ini").write_text("[serving]\npublic_kee = ours.pub\n")
    with pytest.raises(SettingsError, match="public_kee"):
        ChurnPredictor(signed)
    with pytest.raises(ModelUnavailableError, match="public_kee"):
        ModelHolder(signed).get()


# --- the server ---------------------------------------------------------------------------------------------------


def test_the_key_of_the_given_settings_counts_and_no_other(
    signed: Path, key: Path, formula: Formula, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signed.write_bytes(forged(formula))
    with pytest.raises(ModelUnavailableError, match="is not the file that was signed"):
        ModelHolder(load_settings(serving={"model_path": signed, "public_key": key})).get()
    without = load_settings(serving={"model_path": signed})
    (tmp_path / "settings.ini").write_text(f"[serving]\npublic_key = {key}\n")
    assert ModelHolder(without).get().predictor.formula.threshold == 0.999


def test_a_signature_that_comes_after_its_model_is_noticed(signed: Path, key: Path, formula: Formula) -> None:
    holder = ModelHolder(load_settings(serving={"model_path": signed, "public_key": key}))
    before = holder.get().digest
    replace(signed, forged(formula))
    assert holder.changed()
    assert not holder.reload()
    assert holder.get().digest == before
    assert not holder.changed()
    sign_model(signed, key.with_suffix(".key"))
    assert holder.changed()
    assert holder.reload()
    assert holder.get().predictor.formula.threshold == 0.999


@pytest.fixture
def keyed(key: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the key for servers."""
    monkeypatch.setenv("CHURN_SERVING__PUBLIC_KEY", str(key))
    return key


@pytest.mark.slow
def test_a_forged_file_keeps_a_server_from_starting(signed: Path, keyed: Path, formula: Formula) -> None:
    signed.write_bytes(forged(formula))
    command = [sys.executable, "-m", "churn_mlops.serving.command", str(signed), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"churn-serve: error: the model cannot be served: {signed} is not the file that was")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_forged_file_is_refused_on_a_hot_reload_and_the_model_from_before_stays(
    signed: Path, keyed: Path, formula: Formula, workers: str
) -> None:
    with Server(signed, "--workers", workers) as running:
        running.wait_for("Application startup complete", times=int(workers))
        before = httpx.post(f"{running.url}/predict", content=BODY).json()
        replace(signed, forged(formula))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("the model from before stays", times=int(workers))
        assert httpx.post(f"{running.url}/predict", content=BODY).json() == before
        assert "is not the file that was signed" in httpx.get(f"{running.url}/ready").json()["reload_error"]


@pytest.mark.slow
def test_a_watching_server_takes_up_what_is_signed(signed: Path, keyed: Path, formula: Formula) -> None:
    with Server(signed, "--watch") as running:
        replace(signed, forged(formula))
        running.wait_for("the model from before stays")
        sign_model(signed, keyed.with_suffix(".key"))
        running.wait_for(f"now serving the model {load(signed).digest}")
