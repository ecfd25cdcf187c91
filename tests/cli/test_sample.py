"""`jaxstyle sample`, by the installed command."""

import numpy as np
import pytest

from jaxstyle.images import load_image
from jaxstyle.images.painted import paint

data = pytest.importorskip("skimage.data")


def test_writes_the_photograph_and_the_painting(run, tmp_path):
    photo, painting = tmp_path / "photo.png", tmp_path / "painting.png"
    code, _, err = run("sample", photo, painting, "--photograph", "coffee", "--size", 64)
    assert code == 0 and "CC0" in err
    np.testing.assert_allclose(load_image(photo), data.coffee() / 255, atol=1e-6)
    np.testing.assert_allclose(load_image(painting), paint(64, 64), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("existing", ["photo.png", "painting.png"])
def test_files_that_exist_are_kept(run, tmp_path, existing):
    (tmp_path / existing).write_bytes(b"mine")
    words = ("sample", tmp_path / "photo.png", tmp_path / "painting.png", "--size", 64)
    code, _, err = run(*words)
    assert code == 2 and existing in err and "--overwrite" in err
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_bytes() == b"mine"
    assert run(*words, "--overwrite")[0] == 0
    assert load_image(tmp_path / "painting.png").shape == (64, 64, 3)


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_written(run, tmp_path):
    code, _, err = run("sample", tmp_path / "photo.png", tmp_path / "painting.xyz")
    assert code == 2 and "PAINTING" in err and ".xyz" in err
    assert not (tmp_path / "photo.png").exists()


def test_scikit_image_missing_is_told_with_the_way_out(tmp_path, monkeypatch):
    import sys

    from jaxstyle import JaxstyleError
    from jaxstyle.images.samples import load_photograph

    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(JaxstyleError, match=r"pip install"):
        load_photograph("cat")
