"""A GPU's peak speed, by the name that torch gives it."""

from __future__ import annotations

import pytest

from launch.machines import peak


@pytest.mark.parametrize(
    "device, tera",
    [
        ("NVIDIA GB200", 2500),
        ("NVIDIA B200", 2250),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-PCIE-40GB", 312),
        ("NVIDIA A40", 149.7),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla V100-PCIE-32GB", 112),
        ("NVIDIA RTX A4000", 76.7),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        # not what a part of their name says
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA A40-48Q", None),
        ("NVIDIA RTX 6000 Ada Generation", None),
        ("NVIDIA A10", None),
        ("NVIDIA H800", None),
        ("NVIDIA GB300", None),
        ("Tesla V100S-PCIE-32GB", None),
        ("CPU (8 threads)", None),
    ],
)
def test_peaks_are_of_whole_names(device: str, tera: float | None) -> None:
    assert peak(device) == (tera and pytest.approx(tera * 1e12))
