"""Steps many architecture environments at once through the decision diagram of their space, in buffers made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.boundary import call_native, require_array, require_member, require_range

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
_OP = "env_step"


class Autoreset(IntEnum):
    """When an environment whose episode ended starts again; the meaning is that of Gymnasium's `AutoresetMode`."""

    NEXT_STEP = 0
    SAME_STEP = 1
    DISABLED = 2


@dataclass(frozen=True)
class EnvBuffers:
    """The diagram and one row for each environment; `env_reset` and `env_step` write into the rows.

    The diagram is copied, and the copy cannot be written to: what was checked once stays so.

    An observation is the one-hot position, followed by a one-hot gene for each decision taken (zeros where it is not
    taken yet; the position is all zeros once the architecture is complete).

    Attributes:
        transitions: int32 [states, max_choices], as `DecisionDiagram.transitions`.
        offsets: int64 [decisions + 1]; where the one-hot gene of each decision starts, and the observation's size.
        states: int64 [envs]; state of the diagram.
        positions: int64 [envs]; number of decisions taken.
        genes: int64 [envs, decisions]; -1 where not taken yet.
        observations: float32 [envs, offsets[-1]].
        masks: bool [envs, max_choices]; the choices open now, none after the end of an episode.
        terminated: bool [envs]; the last step ended an episode.
        invalid: bool [envs]; it did so because its action was masked.
        final_genes: int64 [envs, decisions]; under SAME_STEP, the genes when the episode ended.
        final_observations: float32 [envs, offsets[-1]]; likewise.
        native: the native module with the addresses of all arrays, None where the references run.

    Raises:
        NativeError: an array has the wrong dtype, shape or memory layout.
    """

    transitions: npt.NDArray[np.int32]
    offsets: IntArray
    states: IntArray
    positions: IntArray
    genes: IntArray
    observations: FloatArray
    masks: BoolArray
    terminated: BoolArray
    invalid: BoolArray
    final_genes: IntArray
    final_observations: FloatArray
    native: tuple[ModuleType, Any, Any] | None = field(default=None, init=False, repr=False, compare=False)

    @staticmethod
    def allocate(num_envs: int, transitions: npt.NDArray[np.int32], choices: Sequence[int]) -> EnvBuffers:
        """Fresh buffers at the start of an episode each.

        Args:
            num_envs: number of environments, at least 1.
            transitions: as `DecisionDiagram.transitions`.
            choices: number of choices of each decision, as `DecisionDiagram.choices`.
        """
        offsets = np.cumsum([len(choices), *choices], dtype=np.int64)
        genes = np.full((num_envs, len(choices)), -1, dtype=np.int64)
        observations = np.zeros((num_envs, int(offsets[-1])), dtype=np.float32)
        buffers = EnvBuffers(
            transitions=np.ascontiguousarray(transitions),
            offsets=offsets,
            states=np.zeros(num_envs, dtype=np.int64),
            positions=np.zeros(num_envs, dtype=np.int64),
            genes=genes,
            observations=observations,
            masks=np.zeros((num_envs, transitions.shape[1]), dtype=np.bool_),
            terminated=np.zeros(num_envs, dtype=np.bool_),
            invalid=np.zeros(num_envs, dtype=np.bool_),
            final_genes=genes.copy(),
            final_observations=observations.copy(),
        )
        env_reset(buffers, np.ones(num_envs, dtype=np.bool_))
        return buffers

    def __post_init__(self) -> None:
        """Check all arrays, and hand their addresses to the native module where there is one."""
        self._require_diagram()
        for name in ("transitions", "offsets"):
            copy = getattr(self, name).copy()
            copy.flags.writeable = False
            object.__setattr__(self, name, copy)
        envs, decisions = len(self.states), len(self.offsets) - 1
        observation = (envs, int(self.offsets[-1]))
        for name, dtype, shape in (
            ("states", np.int64, (envs,)),
            ("positions", np.int64, (envs,)),
            ("genes", np.int64, (envs, decisions)),
            ("observations", np.float32, observation),
            ("masks", np.bool_, (envs, self.transitions.shape[1])),
            ("terminated", np.bool_, (envs,)),
            ("invalid", np.bool_, (envs,)),
            ("final_genes", np.int64, (envs, decisions)),
            ("final_observations", np.float32, observation),
        ):
            require_array(_OP, name, getattr(self, name), dtype, shape, writable=True)
        module = native.module()
        if module is not None:
            object.__setattr__(self, "native", self._to_native(module))

    def _require_diagram(self) -> None:
        require_array(_OP, "transitions", self.transitions, np.int32, (None, None))
        require_array(_OP, "offsets", self.offsets, np.int64, (None,))
        require_array(_OP, "states", self.states, np.int64, (None,), writable=True)
        states, max_choices = self.transitions.shape
        require_range(_OP, "transitions + 1", self.transitions + np.int64(1), states + 1)
        widths = np.diff(self.offsets)
        if len(widths) == 0 or self.offsets[0] != len(widths) or widths.min() < 1 or widths.max() != max_choices:
            raise NativeError(
                f"{_OP}: offsets {self.offsets.tolist()} must start with the number of decisions and grow by the "
                f"choices of each, at most {max_choices} as in transitions"
            )

    def _to_native(self, module: ModuleType) -> tuple[ModuleType, Any, Any]:
        states, max_choices = self.transitions.shape
        diagram = (self.transitions.ctypes.data, self.offsets.ctypes.data, states, len(self.offsets) - 1, max_choices)
        rows = (self.states, self.positions, self.genes, self.observations, self.masks, self.terminated, self.invalid)
        addresses = [array.ctypes.data for array in (*rows, self.final_genes, self.final_observations)]
        return module, module.Diagram(*diagram), module.EnvBuffers(*addresses, len(self.states))


def env_reset(buffers: EnvBuffers, which: BoolArray) -> None:
    """Start new episodes.

    Args:
        buffers: changed in place.
        which: bool [envs]; the environments to reset.

    Raises:
        NativeError: `which` has the wrong dtype, shape or memory layout.
    """
    require_array("env_reset", "which", which, np.bool_, (len(buffers.states),))
    if buffers.native is None:
        env_reset_reference(buffers, which)
    else:
        module, diagram, rows = buffers.native
        call_native("env_reset", module.env_reset, diagram, rows, which.ctypes.data)


def env_step(buffers: EnvBuffers, actions: IntArray, autoreset: Autoreset = Autoreset.NEXT_STEP) -> None:
    """Take one action in every environment.

    An open choice is appended to the genes; the last decision ends the episode. A choice that the mask excludes ends
    the episode too and sets `invalid`; genes and observation stay. Under NEXT_STEP, environments whose episode ended
    in the step before ignore their action and start again. Under SAME_STEP, those that end now are copied to
    `final_genes` and `final_observations` and start again at once.

    Args:
        buffers: changed in place.
        actions: int64 [envs]; one choice, below `max_choices`, for each environment.
        autoreset: when environments start again.

    Raises:
        NativeError: `actions` has the wrong dtype, shape or memory layout, an action is out of range, `autoreset` is
            no `Autoreset`, or an episode is over under DISABLED. Nothing has changed then.
    """
    require_member(_OP, "autoreset", autoreset, Autoreset)
    require_array(_OP, "actions", actions, np.int64, (len(buffers.states),))
    if buffers.native is None:
        env_step_reference(buffers, actions, autoreset)
        return
    module, diagram, rows = buffers.native
    first_bad = call_native(_OP, module.env_step, diagram, rows, actions.ctypes.data, int(autoreset))
    if first_bad < len(actions):
        _require_steppable(buffers, actions, autoreset)


def env_reset_reference(buffers: EnvBuffers, which: BoolArray) -> None:
    """The same as `env_reset` in NumPy: the oracle of its tests, and the fallback without the native module."""
    envs = np.flatnonzero(which)  # `which` may be one of the buffers
    buffers.terminated[envs] = buffers.invalid[envs] = False
    buffers.states[envs] = buffers.positions[envs] = 0
    buffers.genes[envs] = -1
    buffers.observations[envs] = 0
    buffers.observations[envs, 0] = 1
    buffers.masks[envs] = buffers.transitions[0] >= 0


def env_step_reference(buffers: EnvBuffers, actions: IntArray, autoreset: Autoreset = Autoreset.NEXT_STEP) -> None:
    """The same as `env_step` in NumPy: the oracle of its tests, and the fallback without the native module."""
    require_member(_OP, "autoreset", autoreset, Autoreset)
    _require_steppable(buffers, actions, autoreset)
    restarting = buffers.terminated & (autoreset is Autoreset.NEXT_STEP)
    buffers.terminated[:] = buffers.invalid[:] = False
    moving = np.flatnonzero(~restarting)
    # A sound diagram never opens a choice that the decision does not have; an unsound one must not write elsewhere.
    exists = actions[moving] < np.diff(buffers.offsets)[buffers.positions[moving]]
    following = np.where(exists, buffers.transitions[buffers.states[moving], actions[moving]], -1)
    _end_invalid(buffers, moving[following < 0])
    is_open = following >= 0
    _take_choices(buffers, moving[is_open], actions[moving[is_open]], following[is_open])
    env_reset_reference(buffers, restarting)
    if autoreset is Autoreset.SAME_STEP:
        ended, invalid = buffers.terminated.copy(), buffers.invalid.copy()
        buffers.final_genes[ended] = buffers.genes[ended]
        buffers.final_observations[ended] = buffers.observations[ended]
        env_reset_reference(buffers, ended)
        buffers.terminated[:], buffers.invalid[:] = ended, invalid


def _end_invalid(buffers: EnvBuffers, envs: IntArray) -> None:
    buffers.terminated[envs] = buffers.invalid[envs] = True
    buffers.masks[envs] = False


def _take_choices(buffers: EnvBuffers, envs: IntArray, choices: IntArray, following: npt.NDArray[np.int32]) -> None:
    positions = buffers.positions[envs]
    last = positions == len(buffers.offsets) - 2
    buffers.observations[envs, positions] = 0
    buffers.observations[envs, buffers.offsets[positions] + choices] = 1
    buffers.observations[envs[~last], positions[~last] + 1] = 1
    buffers.genes[envs, positions] = choices
    buffers.positions[envs] += 1
    buffers.states[envs] = following
    buffers.masks[envs] = buffers.transitions[following] >= 0
    buffers.terminated[envs] = last


def _require_steppable(buffers: EnvBuffers, actions: IntArray, autoreset: Autoreset) -> None:
    over = buffers.terminated & (autoreset is not Autoreset.SAME_STEP)
    if autoreset is Autoreset.DISABLED and over.any():
        raise NativeError(f"{_OP}: the episode of environment {int(np.argmax(over))} is over; call env_reset for it")
    states, max_choices = buffers.transitions.shape
    # Environments that restart ignore their action: any value passes.
    require_range(_OP, "actions", np.where(over, 0, actions), max_choices)
    require_range(_OP, "states", buffers.states, states)
    require_range(_OP, "positions", np.where(over, 0, buffers.positions), len(buffers.offsets) - 1)
