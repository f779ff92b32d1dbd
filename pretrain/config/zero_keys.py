"""DeepSpeed's `zero_optimization` keys, parted into those that the harness owns and those that `zero.extra` may set."""

import difflib

from pretrain.errors import UserError

OWNED = frozenset(
    """
    stage contiguous_gradients reduce_scatter use_multi_rank_bucket_allreduce compute_grad_norm load_from_fp32_weights elastic_checkpoint
    offload_param offload_optimizer cpu_offload cpu_offload_param cpu_offload_use_pin_memory zenflow ignore_unused_parameters legacy_stage1
    stage3_gather_16bit_weights_on_model_save stage3_gather_fp16_weights_on_model_save zero_hpz_partition_size zero_quantized_weights
    zero_quantized_nontrainable_weights zero_quantized_gradients pipeline_loading_checkpoint override_module_apply
    save_muon_momentum_buffer_in_memory leaf_module
    """.split()
)
"""The exactness of the update, what is saved or where state lives rests on these."""

_MENDS = {"stage": "use zero.stage", "offload_optimizer": "use zero.offload=cpu", "cpu_offload": "use zero.offload=cpu"}

FREE = frozenset(
    """
    reduce_bucket_size allgather_partitions allgather_bucket_size overlap_comm sub_group_size round_robin_gradients parameter_alignment
    memory_efficient_linear log_trace_cache_warnings enable_sanity_checks stage3_prefetch_bucket_size stage3_param_persistence_threshold
    stage3_model_persistence_threshold stage3_max_live_parameters stage3_max_reuse_distance stage3_module_granularity_threshold
    stage3_use_all_reduce_for_fetch_params stage3_allgather_sequential
    """.split()
)
"""Speed and memory only."""


def check_extra(extra: dict) -> None:
    """Raise a `UserError` for the first key of `zero.extra` that is owned or that DeepSpeed does not have."""
    for key, value in ((str(key), value) for key, value in extra.items()):
        if key in OWNED:
            mend = _MENDS.get(key, "leave it out")
            raise UserError(f"zero.extra.{key} is set by the harness, so that the update stays exact; {mend}")
        if key not in FREE:
            close = difflib.get_close_matches(key, FREE, n=1)
            mend = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(FREE))}"
            raise UserError(f"zero.extra.{key} is not a key of DeepSpeed's zero_optimization; {mend}")
        if isinstance(value, dict | list):
            raise UserError(f"zero.extra.{key}={value} is not a single value; give a number, true or false")
