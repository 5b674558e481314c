import jax
import pytest

from jxai.cli.running.compilation_cache import folder, keep_compiled_programs


@pytest.fixture
def setting():
    """JAX's own setting, put back after the test."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_users_cache(setting, monkeypatch, tmp_path):
    monkeypatch.delenv("JXAI_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert folder() == tmp_path / ".cache" / "jxai" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg" / "jxai" / "compiled"
    monkeypatch.setenv("JXAI_CACHE", str(tmp_path / "own"))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compiled_programs()
    assert setting() == str(tmp_path / "own")


def test_a_folder_that_is_set_stays(setting, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))  # as JAX_COMPILATION_CACHE_DIR does
    keep_compiled_programs()
    assert setting() == str(tmp_path)


def test_without_a_home_nothing_is_kept(setting, monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("JXAI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jxai.cli.running.compilation_cache.Path.home", homeless)
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compiled_programs()
    assert setting() is None
    reason = "Could not determine home directory."
    assert (
        capsys.readouterr().err == f"compiled programs are not kept ({reason}): set JXAI_CACHE to a folder\n"
    )
