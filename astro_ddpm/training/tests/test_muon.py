# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the optimiser that orthogonalises.
"""

import pytest
import torch
from numpy.testing import assert_allclose

from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.training.muon import Muon, orthogonalize, split_parameters


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestOrthogonalize:
    """Against the polar factor by a singular value decomposition."""

    @pytest.mark.parametrize("shape", [(20, 90), (90, 20), (32, 32)])
    def test_singular_vectors_stay_and_values_go_to_one(self, shape):
        matrix = randn(*shape)
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        middle = u.T @ orthogonalize(matrix) @ vh.T
        values = torch.diagonal(middle)
        assert_allclose(middle - torch.diag(values), 0, atol=1e-4)
        assert values.min() > 0.6
        assert values.max() < 1.3

    def test_polynomial_of_each_value(self):
        values = torch.tensor([3.0, 1.0, 0.2])
        expected = values / values.norm()
        for _ in range(2):
            expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
        q, _ = torch.linalg.qr(randn(5, 3))
        assert_allclose(orthogonalize(q * values, steps=2), q * expected, atol=1e-5)

    def test_size_does_not_matter(self):
        matrix = randn(4, 6)
        assert_allclose(orthogonalize(1e-4 * matrix), orthogonalize(matrix), atol=1e-5)
        assert not orthogonalize(torch.zeros(4, 6)).any()


class TestMuon:
    def test_first_step_of_a_convolution(self):
        # momentum 0: the polar factor of the gradient, as far as five steps give it, times root of 8 / 2
        weight = torch.nn.Parameter(torch.zeros(8, 2, 1, 1))
        gradient = randn(8, 2, 1, 1)
        optimizer = Muon([weight], [], 0.1, 1e-3, momentum=0.0, weight_decay=0.0)
        weight.grad = gradient.clone()
        optimizer.step()
        assert_allclose(weight.detach().flatten(1), -0.1 * 2 * orthogonalize(gradient.flatten(1)), rtol=1e-5)
        u, _, vh = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        assert_allclose(weight.detach().flatten(1), -0.2 * u @ vh, atol=0.2 * 0.35)

    def test_momentum_of_nesterov(self):
        weight = torch.nn.Parameter(torch.zeros(3, 3, 1, 1))
        optimizer = Muon([weight], [], 1.0, 1e-3, momentum=0.5, weight_decay=0.0)
        one, two = randn(3, 3, 1, 1), randn(3, 3, 1, 1, seed=1)
        for gradient in (one, two):
            before = weight.detach().clone()
            weight.grad = gradient.clone()
            optimizer.step()
        mean = 0.25 * one + 0.5 * two
        expected = orthogonalize((0.5 * two + 0.5 * mean).flatten(1))
        assert_allclose((before - weight.detach()).flatten(1), expected, atol=1e-5)

    def test_others_are_those_of_adamw(self):
        one, two, weight = (torch.nn.Parameter(randn(4, 5)) for _ in range(3))
        convolution = torch.nn.Parameter(weight.detach().reshape(4, 5, 1, 1).clone())
        options = {"betas": (0.9, 0.99), "weight_decay": 1e-2}
        optimizers = (
            Muon([convolution], [one], 0.1, 0.01, **options),
            torch.optim.AdamW([two], 0.01, **options),
        )
        for step in range(3):
            for parameter in (one, two, convolution):
                parameter.grad = randn(*parameter.shape, seed=step)
            for optimizer in optimizers:
                optimizer.step()
        assert torch.equal(one, two)
        assert convolution.grad is None

    def test_goes_on_from_a_checkpoint(self):
        def train(weights, optimizer, steps):
            for step in steps:
                for weight in weights:
                    weight.grad = randn(*weight.shape, seed=step)
                optimizer.step()

        def start():
            weights = [torch.nn.Parameter(randn(4, 5, 3, 3)), torch.nn.Parameter(randn(7))]
            return weights, Muon(weights[:1], weights[1:], 0.02, 1e-3)

        weights, optimizer = start()
        train(weights, optimizer, range(4))
        others, first = start()
        train(others, first, range(2))
        second = Muon(others[:1], others[1:], 0.02, 1e-3)
        second.load_state_dict(first.state_dict())
        train(others, second, range(2, 4))
        assert all(map(torch.equal, weights, others))

    def test_closure(self):
        weight = torch.nn.Parameter(torch.ones(3, 3, 1, 1))
        optimizer = Muon([weight], [], 0.1, 1e-3)

        def closure():
            loss = weight.square().sum()
            loss.backward()
            return loss

        assert optimizer.step(closure).item() == 9
        assert weight.square().sum() < 9


@pytest.mark.parametrize("network", [RAUNet((4, 6)), GuidedUNet((4, 6), patch=2)])
def test_first_and_last_layers_are_others(network):
    convolutions, others = split_parameters(network)
    names = {id(p): name for name, p in network.named_parameters()}
    assert len(convolutions) + len(others) == len(names)
    inner = {names[id(p)] for p in convolutions}
    assert any("middle" in name for name in inner)
    assert not any("stem" in name or "head" in name for name in inner)
    assert all(p.ndim == 4 and min(p.shape[:2]) > 1 for p in convolutions)
