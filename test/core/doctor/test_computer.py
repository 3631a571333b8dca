"""Checks of Python, packages and the processor, in environments that are made up."""

from types import SimpleNamespace

import pytest

from instructsam.core.doctor.check import fault, note, ok, run_checks
from instructsam.core.doctor.computer import check_packages, check_python, check_torch

VERSIONS = {'torch': '2.13.0+cpu', 'transformers': '5.24.0'}


def modules(**replaced):
    """Return an import function that finds every package; `replaced` gives other modules, or exceptions."""
    absent = SimpleNamespace(__version__='1.0')
    known = {name: SimpleNamespace(__version__=VERSIONS[name]) for name in VERSIONS} | replaced

    def import_module(name):
        module = known.get(name, absent)
        if isinstance(module, Exception):
            raise module
        return module

    return import_module


def cuda(*, is_available=True, compute=2, built_for='13.0'):
    """Return a stand-in for torch with one GPU, on which the sum of two ones is `compute`, or raises it."""

    def ones(count, device):
        if isinstance(compute, Exception):
            raise compute
        return _Tensor(compute)

    return SimpleNamespace(
        __version__='2.13.0',
        version=SimpleNamespace(cuda=built_for),
        get_num_threads=lambda: 4,
        ones=ones,
        cuda=SimpleNamespace(
            is_available=lambda: is_available,
            device_count=lambda: 1,
            get_device_properties=lambda index: SimpleNamespace(name='H200', total_memory=140e9),
            mem_get_info=lambda index: (100e9, 140e9),
        ),
    )


class _Tensor:
    def __init__(self, value):
        self.value = value

    def __mul__(self, factor):
        return _Tensor(self.value * factor)

    def sum(self):
        return self

    def item(self):
        return self.value


@pytest.fixture
def machine(tmp_path):
    """Function that returns the files of a machine; those that are not named do not exist."""

    def make(*, driver=False, jetson=False, flags=''):
        paths = {name: tmp_path / name for name in ('driver', 'jetson', 'cpu_info')}
        for name, exists in (('driver', driver), ('jetson', jetson), ('cpu_info', True)):
            if exists:
                paths[name].write_text(f'flags : {flags}')
        return paths

    return make


def test_an_old_python():
    assert [check.level for check in check_python((3, 9, 2))] == ['fault']
    assert [check.level for check in check_python((3, 12, 3))] == ['ok']


@pytest.mark.parametrize(
    ('replaced', 'text', 'advice'),
    [
        ({'scipy': ModuleNotFoundError(name='scipy')}, 'not installed', 'pip install "scipy"'),
        ({'accelerate': ModuleNotFoundError(name='psutil')}, 'it needs psutil', 'pip install psutil'),
        ({'transformers': SimpleNamespace(__version__='4.57.1')}, '4.57.1, expected', 'transformers>=5.0,<6'),
        ({'transformers': SimpleNamespace(__version__='6.0')}, '6.0, expected', 'transformers>=5.0,<6'),
        ({'torch': SimpleNamespace(__version__='2.3.1')}, '2.3.1, expected', 'torch>=2.4'),
        ({'cv2': ImportError('compiled using NumPy 1.x\nand more')}, 'NumPy 1.x and more', '--force-reinstall'),
    ],
)
def test_a_package_that_does_not_fit(replaced, text, advice):
    faults = [check for check in check_packages(modules(**replaced)) if check.level == 'fault']
    (check,) = faults
    assert check.name in replaced
    assert text in check.text
    assert advice in check.advice


def test_all_packages():
    (check,) = check_packages(modules())
    assert check.level == 'ok'
    assert 'torch 2.13.0+cpu' in check.text


@pytest.mark.parametrize(
    ('torch', 'files', 'level', 'text'),
    [
        (cuda(), {'driver': True}, 'ok', 'H200, 140 GB, 100.0 GB of it free, CUDA 13.0'),
        (cuda(compute=RuntimeError('no kernel image')), {'driver': True}, 'fault', 'cannot compute on it: no kernel'),
        (cuda(compute=3), {'driver': True}, 'fault', '2 x 1 + 2 x 1 is 6'),
        (cuda(is_available=False), {'driver': True}, 'fault', 'it sees no GPU'),
        (cuda(is_available=False, built_for=None), {'driver': True}, 'fault', 'built for the CPU only'),
        (cuda(is_available=False, built_for=None), {'jetson': True}, 'fault', 'this is a Jetson'),
        (cuda(is_available=False), {}, 'note', 'torch uses the CPU'),
        (cuda(is_available=False), {'flags': 'sse avx512_bf16 amx_bf16'}, 'note', 'bfloat16 by AMX, AVX-512'),
    ],
)
def test_processors(machine, torch, files, level, text):
    (check,) = check_torch(modules(torch=torch), **machine(**files))
    assert (check.level, text in check.text) == (level, True), check


def test_without_torch_nothing_is_said_twice(machine):
    assert list(check_torch(modules(torch=ImportError('libcudart.so.13')), **machine())) == []


def test_a_check_that_fails_is_a_fault_and_the_others_run():
    def broken():
        yield ok('first', 'part')
        raise RuntimeError('two\nlines')

    checks = list(run_checks([('broken', broken), ('other', lambda: [note('other', 'x')])]))
    assert [(check.name, check.level) for check in checks] == [('first', 'ok'), ('broken', 'fault'), ('other', 'note')]
    assert 'RuntimeError: two lines' in checks[1].text
    assert checks[1].advice


def test_texts_are_one_line():
    check = fault('x', 'a\nb\x1b[0m', 'c\nd')
    assert (check.text, check.advice) == ('a b\\x1b[0m', 'c d')
