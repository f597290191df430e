"""What /proc/cpuinfo says about bf16, as x86 and Arm kernels write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.processor import native_bf16


@pytest.mark.parametrize(
    ("text", "native"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx512f avx512_bf16 amx_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16 dgh\n", True),
        ("processor\t: 0\nmodel name\t: a bf16 in a name\nflags\t\t: fpu\n", False),
        ("", False),
    ],
    ids=["x86 with", "x86 without", "Arm with", "only in a name", "empty"],
)
def test_bf16_in_hardware_is_read_from_the_flags(tmp_path: Path, text: str, native: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert native_bf16(path) == native


def test_where_the_kernel_says_nothing_there_is_none(tmp_path: Path) -> None:
    assert not native_bf16(tmp_path / "cpuinfo")
