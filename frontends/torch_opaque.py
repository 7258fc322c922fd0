"""The public spellings of torch that no lowering covers, each with the reason why its calls stay whole.

A plain name stands for the functions of torch and of torch.nn.functional and for the method of Tensor; `torch.x`,
`F.x` and `nn.X` for one of them.
"""

from __future__ import annotations

_NAMES = {
    "it draws random numbers":
        "bernoulli binomial cauchy_ exponential_ fractional_max_pool2d fractional_max_pool3d geometric_ "
        "gumbel_softmax fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices log_normal_ "
        "multinomial native_dropout normal_ poisson random_ rrelu uniform_ nn.FractionalMaxPool2d "
        "nn.FractionalMaxPool3d nn.RReLU",
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
        "cdouble cfloat chalf complex imag istft polar stft view_as_complex view_as_complex_copy view_as_real "
        "view_as_real_copy",
    "recurrent: what its subclasses have in common":
        "nn.RNNBase nn.RNNCellBase",
    "the result's shape depends on data":
        "nonzero_static",
    "linear algebra without an ONNX operator":
        "cholesky cholesky_inverse cholesky_solve eig geqrf inverse lobpcg lstsq lu lu_solve lu_unpack matrix_exp "
        "nuclear_norm orgqr ormqr pca_lowrank pinverse qr solve svd svd_lowrank symeig triangular_solve",
    "a special function without an ONNX operator":
        "digamma erfinv i0 igamma igammac lgamma mvlgamma polygamma",
    "statistics without an ONNX operator":
        "histogram histogramdd nanmedian nanquantile mode",
    "it needs sparse tensors":
        "ccol_indices ccol_indices_copy coalesce col_indices col_indices_copy crow_indices crow_indices_copy "
        "dense_dim hsmm hspmm indices indices_copy is_coalesced resize_as_sparse_ row_indices row_indices_copy "
        "saddmm smm sparse_dim sparse_mask sparse_resize_ sparse_resize_and_clear_ sspaddmm to_dense to_sparse "
        "to_sparse_bsc to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr values values_copy",
    "it needs torch's own quantized tensors":
        "choose_qparams_optimized dequantize fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation "
        "fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight "
        "fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix int_repr q_per_channel_axis q_per_channel_scales "
        "q_per_channel_zero_points q_scale q_zero_point qscheme quantize_per_channel quantize_per_tensor "
        "quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell quantized_lstm_cell "
        "quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d quantized_rnn_relu_cell "
        "quantized_rnn_tanh_cell",
    "fake quantization, for which qir places quantizers of its own":
        "fake_quantize_per_channel_affine fake_quantize_per_tensor_affine fused_moving_avg_obs_fake_quant",
    "its result is no tensor: it answers in Python":
        "__contains__ __index__ allclose dim_order equal get_device is_conj is_contiguous is_distributed "
        "is_inference is_neg is_nonzero is_pinned is_same_size is_set_to is_shared item numpy storage_offset stride "
        "tolist sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum",
    "it is about memory, devices or the gradient, not about values":
        "apply_ as_subclass backward const_data_ptr cpu cuda data_ptr ipu map2_ map_ module_load mtia pin_memory "
        "record_stream register_hook register_post_accumulate_grad_hook reinforce requires_grad_ retain_grad set_ "
        "share_memory_ storage storage_type to_mkldnn to_padded_tensor untyped_storage xpu",
    "it writes into a tensor, with no function that returns the result":
        "__setitem__ resize resize_as",
    "it depends on how the tensor lies in memory":
        "as_strided as_strided_copy as_strided_scatter slice_inverse",
    "a kernel of one device, or a part of another function":
        "batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats "
        "batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats miopen_batch_norm "
        "miopen_convolution miopen_convolution_add_relu miopen_convolution_relu miopen_convolution_transpose "
        "miopen_depthwise_convolution miopen_rnn native_batch_norm native_group_norm native_layer_norm native_norm "
        "scaled_grouped_mm scaled_mm torch.embedding_bag",
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
    "it takes the bits of a float apart, for which ONNX has no operator":
        "nextafter frexp",
    "torch's own hash of the bits, without an ONNX operator":
        "hash_tensor",
    "its values are whatever memory holds":
        "empty_like new new_empty new_empty_strided",
    "it makes a tensor of Python data, which tracing records as a constant":
        "new_tensor",
    "Python takes items away: torch has no such call":
        "__delitem__",
    "Euclid's algorithm takes as many steps as its data needs":
        "gcd lcm",
    "it names axes by objects of torch (first-class dimensions)":
        "Tensor.index",
}  # fmt: skip

OPAQUE = {name: reason for reason, names in _NAMES.items() for name in names.split()}
"""The reason by spelling."""
assert len(OPAQUE) == sum(len(names.split()) for names in _NAMES.values())
