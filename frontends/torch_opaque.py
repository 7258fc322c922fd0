"""The public spellings of torch that no lowering covers, each with the reason why its calls stay whole.

A plain name stands for the functions of torch and of torch.nn.functional and for the method of Tensor; `torch.x`,
`F.x` and `nn.X` for one of them.
"""

from __future__ import annotations

_NAMES = {
    "it draws random numbers":
        "bernoulli binomial cauchy_ exponential_ fractional_max_pool2d fractional_max_pool3d geometric_ gumbel_softmax "
        "fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices log_normal_ multinomial native_dropout "
        "normal_ poisson random_ rrelu uniform_ nn.FractionalMaxPool2d nn.FractionalMaxPool3d nn.RReLU",
    "a loss: no part of inference":
        "binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy ctc_loss "
        "gaussian_nll_loss hinge_embedding_loss huber_loss kl_div l1_loss linear_cross_entropy margin_ranking_loss "
        "mse_loss multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss nll_loss poisson_nll_loss "
        "smooth_l1_loss soft_margin_loss triplet_margin_loss triplet_margin_with_distance_loss "
        "nn.AdaptiveLogSoftmaxWithLoss nn.BCELoss nn.BCEWithLogitsLoss nn.CTCLoss nn.CosineEmbeddingLoss "
        "nn.CrossEntropyLoss nn.GaussianNLLLoss nn.HingeEmbeddingLoss nn.HuberLoss nn.KLDivLoss nn.L1Loss "
        "nn.LinearCrossEntropyLoss nn.MSELoss nn.MarginRankingLoss nn.MultiLabelMarginLoss "
        "nn.MultiLabelSoftMarginLoss nn.MultiMarginLoss nn.NLLLoss nn.NLLLoss2d nn.PoissonNLLLoss nn.SmoothL1Loss "
        "nn.SoftMarginLoss nn.TripletMarginLoss nn.TripletMarginWithDistanceLoss",
    "it needs complex numbers":
        "adjoint angle cdouble cfloat chalf complex conj conj_physical imag istft polar real resolve_conj resolve_neg "
        "sgn stft vdot view_as_complex view_as_complex_copy view_as_real view_as_real_copy",
    "recurrent: kept whole by its framework layer":
        "gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell nn.GRU nn.GRUCell nn.LSTM "
        "nn.LSTMCell nn.RNN nn.RNNBase nn.RNNCell nn.RNNCellBase",
    "attention: kept whole by its framework layer":
        "multi_head_attention_forward scaled_dot_product_attention nn.MultiheadAttention nn.Transformer "
        "nn.TransformerDecoder nn.TransformerDecoderLayer nn.TransformerEncoder nn.TransformerEncoderLayer",
    "the result's shape depends on data":
        "argwhere bincount masked_select nonzero nonzero_static repeat_interleave unique unique_consecutive",
    "linear algebra without an ONNX operator":
        "cholesky cholesky_inverse cholesky_solve det eig geqrf inverse lobpcg logdet lstsq lu lu_solve lu_unpack "
        "matrix_exp matrix_power nuclear_norm orgqr ormqr pca_lowrank pinverse qr slogdet solve svd svd_lowrank "
        "symeig triangular_solve",
    "a special function without an ONNX operator":
        "digamma erfinv i0 igamma igammac lgamma mvlgamma nextafter polygamma",
    "statistics without an ONNX operator":
        "corrcoef cov histc histogram histogramdd median nanmedian nanquantile quantile kthvalue mode",
    "several results in a named tuple, which a graph does not return":
        "adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices aminmax "
        "cummax cummin frexp max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices sort std_mean "
        "topk var_mean",
    "it needs sparse tensors":
        "ccol_indices ccol_indices_copy coalesce col_indices col_indices_copy crow_indices crow_indices_copy dense_dim "
        "hsmm hspmm indices indices_copy is_coalesced resize_as_sparse_ row_indices row_indices_copy saddmm smm "
        "sparse_dim sparse_mask sparse_resize_ sparse_resize_and_clear_ sspaddmm to_dense to_sparse to_sparse_bsc "
        "to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr values values_copy",
    "it needs torch's own quantized tensors":
        "choose_qparams_optimized dequantize fake_quantize_per_channel_affine fake_quantize_per_tensor_affine "
        "fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight "
        "fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16 "
        "fbgemm_pack_quantized_matrix fused_moving_avg_obs_fake_quant int_repr q_per_channel_axis "
        "q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qscheme quantize_per_channel "
        "quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell "
        "quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d "
        "quantized_rnn_relu_cell quantized_rnn_tanh_cell",
    "its result is no tensor: it answers in Python":
        "__contains__ __index__ allclose dim dim_order element_size equal get_device is_complex is_conj is_contiguous "
        "is_distributed is_floating_point is_inference is_neg is_nonzero is_pinned is_same_size is_set_to is_shared "
        "is_signed item ndimension nelement numel numpy storage_offset stride tolist hash_tensor "
        "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum",
    "it is about memory, devices or the gradient, not about values":
        "apply_ as_subclass backward const_data_ptr cpu cuda data_ptr ipu map2_ map_ module_load mtia "
        "norm_except_dim pin_memory record_stream register_hook register_post_accumulate_grad_hook reinforce "
        "requires_grad_ retain_grad set_ share_memory_ storage storage_type to_mkldnn to_padded_tensor "
        "untyped_storage xpu",
    "it makes a new tensor from the size of another":
        "empty_like full_like new new_empty new_empty_strided new_full new_ones new_tensor new_zeros ones_like "
        "zeros_like",
    "it writes into a tensor, with no function that returns the result":
        "__delitem__ __setitem__ copy_ fill_ fill_diagonal_ resize resize_as zero_",
    "it depends on how the tensor lies in memory":
        "as_strided as_strided_copy as_strided_scatter",
    "a kernel of one device, or a part of another function":
        "batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats "
        "batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats convolution grouped_mm "
        "miopen_batch_norm miopen_convolution miopen_convolution_add_relu miopen_convolution_relu "
        "miopen_convolution_transpose miopen_depthwise_convolution miopen_rnn native_batch_norm "
        "native_channel_shuffle native_group_norm native_layer_norm native_norm scaled_grouped_mm scaled_mm "
        "torch.batch_norm torch.embedding torch.instance_norm affine_grid_generator grid_sampler grid_sampler_2d "
        "grid_sampler_3d",
    "no computation: a helper of torch itself":
        "assert_int_or_pair boolean_dispatch handle_torch_function has_torch_function has_torch_function_unary "
        "has_torch_function_variadic",
    "it holds other layers, through which it is traced":
        "nn.Container nn.DataParallel nn.Module nn.ModuleDict nn.ModuleList nn.ParameterDict nn.ParameterList "
        "nn.Sequential",
    "it turns into the plain layer at its first call":
        "nn.LazyBatchNorm1d nn.LazyBatchNorm2d nn.LazyBatchNorm3d nn.LazyConv1d nn.LazyConv2d nn.LazyConv3d "
        "nn.LazyConvTranspose1d nn.LazyConvTranspose2d nn.LazyConvTranspose3d nn.LazyInstanceNorm1d "
        "nn.LazyInstanceNorm2d nn.LazyInstanceNorm3d nn.LazyLinear",
    "it exchanges data between processes":
        "nn.SyncBatchNorm",
    "it copies what a view would share; only torch's own passes call it":
        "alias_copy detach_copy diagonal_copy expand_copy narrow_copy permute_copy select_copy slice_copy "
        "slice_inverse split_copy split_with_sizes_copy squeeze_copy t_copy "
        "transpose_copy unbind_copy unfold_copy unsqueeze_copy "
        "view_copy unsafe_chunk unsafe_split unsafe_split_with_sizes",
    "its result takes the shape or dtype of another tensor":
        "expand_as reshape_as sum_to_size type_as view_as",
    "a number for the bits of another, which ONNX has for unsigned numbers alone":
        "__ilshift__ __irshift__ __lshift__ __rlshift__ __rrshift__ __rshift__ bitwise_left_shift bitwise_right_shift "
        "signbit",
    "not lowered yet: it stays whole in torch and goes through torchlib to ONNX":
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d addbmm addmv addr affine_grid argsort atleast_1d "
        "atleast_2d atleast_3d bilinear block_diag broadcast_tensors bucketize cartesian_prod cdist chain_matmul "
        "combinations conv_tbc copysign count_nonzero cross cumprod cumulative_trapezoid diag diag_embed diagflat "
        "diagonal diagonal_scatter diff dist dsplit embedding_bag float_power fmax fmin fold frobenius_norm gcd "
        "gradient grid_sample heaviside hsplit index_add index_copy index_fill index_put index_reduce inner isclose "
        "isin isreal kron lcm ldexp logaddexp2 logcumsumexp lp_pool1d lp_pool2d lp_pool3d masked_scatter max_unpool1d "
        "max_unpool2d max_unpool3d meshgrid msort nan_to_num nanmean nansum one_hot pdist put renorm rot90 scatter "
        "scatter_add scatter_reduce searchsorted select_scatter slice_scatter take take_along_dim tensordot trace "
        "trapezoid trapz unfold unravel_index vsplit nn.AdaptiveMaxPool1d nn.AdaptiveMaxPool2d nn.AdaptiveMaxPool3d "
        "nn.Bilinear nn.CrossMapLRN2d nn.EmbeddingBag nn.Fold nn.LPPool1d nn.LPPool2d nn.LPPool3d nn.MaxUnpool1d "
        "nn.MaxUnpool2d nn.MaxUnpool3d nn.Unfold Tensor.index",
}  # fmt: skip

OPAQUE = {name: reason for reason, names in _NAMES.items() for name in names.split()}
"""The reason by spelling."""
assert len(OPAQUE) == sum(len(names.split()) for names in _NAMES.values())
