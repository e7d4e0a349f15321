"""What the tests of commands share."""

import pytest

from trajclust_experiments import cli


@pytest.fixture
def trajclust(capsys, monkeypatch, tmp_path):
    """Runs a command in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAJCLUST_DEBUG", raising=False)
    monkeypatch.delenv("TRAJCLUST_RESULTS", raising=False)
    monkeypatch.setenv("WANDB_PROJECT", "")  # which --project sets

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return exit.value.code or 0, out, err

    return run
