"""`ALLOWED`: the operations that a graph of a run may hold. What is not named here is refused.

A graph from a stranger is a program. A list of what is forbidden would miss the operation that nobody thought of, so this
is a list of what is allowed: pure mathematics, control flow, seeded or stateless random numbers, variables and tables that
the graph is given or makes itself, and text on the standard streams. Files, sockets, Python, clocks, queues, data
pipelines, devices of other machines, parsers of images and custom libraries are missing on purpose.

To allow one more, look at its kernel: it must depend on nothing but its arguments, and change nothing but its results and
the resources among its arguments.
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VALUES = _names(
    """
    Const Identity IdentityN NoOp Placeholder PlaceholderWithDefault Snapshot EnsureShape StopGradient
    PreventGradient CheckNumerics CheckNumericsV2 Assert Cast Bitcast Shape ShapeN Size Rank Fill ZerosLike OnesLike
    Range LinSpace Empty DeepCopy GuaranteeConst BroadcastTo BroadcastArgs BroadcastGradientArgs HostConst FakeParam
    _Arg _Retval
    """
)

# `If`, `While` and calls name functions of the library, which are inspected, too.
_CONTROL_FLOW = _names(
    """
    If StatelessIf Case StatelessCase While StatelessWhile For PartitionedCall StatefulPartitionedCall Switch Merge
    Enter Exit NextIteration LoopCond ControlTrigger RefIdentity ToBool
    """
)

_ELEMENTWISE = _names(
    """
    Abs Acos Acosh Add AddN AddV2 AccumulateNV2 Angle ApproximateEqual Asin Asinh Atan Atan2 Atanh BesselI0
    BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Betainc
    BitwiseAnd BitwiseOr BitwiseXor Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Dawsn Digamma Div DivNoNan
    Equal Erf Erfc Erfinv Exp Expint Expm1 Floor FloorDiv FloorMod FresnelCos FresnelSin Greater GreaterEqual Igamma
    IgammaGradA Igammac Imag Inv InvGrad Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log Log1p
    LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Polygamma
    PopulationCount Pow Real RealDiv Reciprocal ReciprocalGrad RightShift Rint Round Rsqrt RsqrtGrad Select SelectV2
    Sign Sin Sinh Spence Sqrt SqrtGrad Square SquaredDifference Sub Tan Tanh TanhGrad TruncateDiv TruncateMod Xdivy
    Xlog1py Xlogy Zeta Bucketize
    """
)

_ACTIVATIONS = _names(
    """
    Elu EluGrad LeakyRelu LeakyReluGrad LogSoftmax Relu Relu6 Relu6Grad ReluGrad Selu SeluGrad Sigmoid SigmoidGrad
    Softmax Softplus SoftplusGrad Softsign SoftsignGrad SoftmaxCrossEntropyWithLogits
    SparseSoftmaxCrossEntropyWithLogits L2Loss CTCLoss CTCLossV2 CTCGreedyDecoder CTCBeamSearchDecoder EditDistance
    InTopK InTopKV2
    """
)

_REDUCTIONS = _names(
    """
    All Any ArgMax ArgMin ApproxTopK Bincount Cumprod Cumsum CumulativeLogsumexp DenseBincount EuclideanNorm
    HistogramFixedWidth KthOrderStatistic Max Mean Min NthElement Prod Sum TopK TopKV2 TopKUnique TopKWithUnique
    SegmentMax SegmentMaxV2 SegmentMean SegmentMin SegmentMinV2 SegmentProd SegmentProdV2 SegmentSum SegmentSumV2
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum IsotonicRegression
    """
)

_ARRANGEMENTS = _names(
    """
    BatchToSpace BatchToSpaceND Concat ConcatOffset ConcatV2 DataFormatDimMap DataFormatVecPermute DepthToSpace Diag
    DiagPart DynamicPartition DynamicStitch ExpandDims Gather GatherNd GatherV2 InplaceAdd InplaceSub InplaceUpdate
    InvertPermutation ListDiff LowerBound MakeUnique MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2
    MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad MirrorPadGrad
    OneHot Pack Pad PadV2 ParallelConcat ParallelDynamicStitch Reshape Reverse ReverseSequence ReverseV2 Roll
    ScatterNd ScatterNdNonAliasingAdd Slice SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze
    StridedSlice StridedSliceGrad TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub
    TensorScatterUpdate TensorStridedSliceUpdate Tile TileGrad Transpose ConjugateTranspose Unique UniqueV2
    UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where
    """
)

_LINEAR_ALGEBRA = _names(
    """
    BandedTriangularSolve BatchCholesky BatchCholeskyGrad BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky
    CholeskyGrad Cross Eig Einsum LogMatrixDeterminant Lu MatMul MatrixDeterminant MatrixExponential MatrixInverse
    MatrixLogarithm MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Qr SelfAdjointEig
    SelfAdjointEigV2 SparseMatMul Svd TridiagonalMatMul TridiagonalSolve FFT FFT2D FFT3D FFTND IFFT IFFT2D IFFT3D
    IFFTND IRFFT IRFFT2D IRFFT3D IRFFTND RFFT RFFT2D RFFT3D RFFTND
    """
)

_CONVOLUTIONS = _names(
    """
    AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BiasAdd BiasAddGrad BiasAddV1 Conv Conv2D Conv2DBackpropFilter
    Conv2DBackpropFilterV2 Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D Conv3DBackpropFilter
    Conv3DBackpropFilterV2 Conv3DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dilation2D Dilation2DBackpropFilter
    Dilation2DBackpropInput ExtractImagePatches ExtractVolumePatches FractionalAvgPool FractionalAvgPoolGrad
    FractionalMaxPool FractionalMaxPoolGrad FusedPadConv2D FusedResizeAndPadConv2D LRN LRNGrad MaxPool MaxPool3D
    MaxPool3DGrad MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad MaxPoolGradGradV2 MaxPoolGradGradWithArgmax
    MaxPoolGradV2 MaxPoolGradWithArgmax MaxPoolV2 MaxPoolWithArgmax
    """
)

_NORMALIZATION = _names(
    """
    BatchNormWithGlobalNormalization BatchNormWithGlobalNormalizationGrad FusedBatchNorm FusedBatchNormGrad
    FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3
    """
)

_RECURRENCE = _names(
    """
    BlockLSTM BlockLSTMGrad BlockLSTMGradV2 BlockLSTMV2 GRUBlockCell GRUBlockCellGrad LSTMBlockCell
    LSTMBlockCellGrad CudnnRNN CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3 CudnnRNNCanonicalToParams
    CudnnRNNCanonicalToParamsV2 CudnnRNNParamsSize CudnnRNNParamsToCanonical CudnnRNNParamsToCanonicalV2 CudnnRNNV2
    CudnnRNNV3
    """
)

# Of pixels that are numbers already. Files of images are decoded before they reach a model.
_IMAGES_AND_SOUND = _names(
    """
    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation AudioSpectrogram CombinedNonMaxSuppression
    CropAndResize CropAndResizeGradBoxes CropAndResizeGradImage DrawBoundingBoxes DrawBoundingBoxesV2 ExtractGlimpse
    ExtractGlimpseV2 GenerateBoundingBoxProposals HSVToRGB ImageProjectiveTransformV2 ImageProjectiveTransformV3
    Mfcc NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
    NonMaxSuppressionWithOverlaps RGBToHSV ResizeArea ResizeBicubic ResizeBicubicGrad ResizeBilinear
    ResizeBilinearGrad ResizeNearestNeighbor ResizeNearestNeighborGrad ScaleAndTranslate ScaleAndTranslateGrad
    """
)

_QUANTIZATION = _names(
    """
    Dequantize FakeQuantWithMinMaxArgs FakeQuantWithMinMaxArgsGradient FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsGradient FakeQuantWithMinMaxVarsPerChannel FakeQuantWithMinMaxVarsPerChannelGradient
    QuantizeAndDequantize QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
    QuantizeAndDequantizeV4Grad QuantizeV2 StochasticCastToInt
    """
)

_SPARSE_AND_RAGGED = _names(
    """
    DenseCountSparseOutput DenseToDenseSetOperation DenseToSparseSetOperation RaggedBincount RaggedCountSparseOutput
    RaggedCross RaggedFillEmptyRows RaggedFillEmptyRowsGrad RaggedGather RaggedRange RaggedTensorFromVariant
    RaggedTensorToSparse RaggedTensorToTensor RaggedTensorToVariant RaggedTensorToVariantGradient SetSize SparseAdd
    SparseAddGrad SparseBincount SparseConcat SparseCountSparseOutput SparseCross SparseCrossHashed SparseCrossV2
    SparseDenseCwiseAdd SparseDenseCwiseDiv SparseDenseCwiseMul SparseFillEmptyRows SparseFillEmptyRowsGrad
    SparseReduceMax SparseReduceMaxSparse SparseReduceSum SparseReduceSumSparse SparseReorder SparseReshape
    SparseSegmentMean SparseSegmentMeanGrad SparseSegmentMeanGradV2 SparseSegmentMeanWithNumSegments
    SparseSegmentSqrtN SparseSegmentSqrtNGrad SparseSegmentSqrtNGradV2 SparseSegmentSqrtNWithNumSegments
    SparseSegmentSum SparseSegmentSumGrad SparseSegmentSumGradV2 SparseSegmentSumWithNumSegments SparseSlice
    SparseSliceGrad SparseSoftmax SparseSparseMaximum SparseSparseMinimum SparseSplit SparseTensorDenseAdd
    SparseTensorDenseMatMul SparseToDense SparseToSparseSetOperation
    """
)

# Loops keep their rows in lists. The stacks and arrays are those that a graph makes and passes on itself.
_LISTS = _names(
    """
    EmptyTensorList TensorListConcat TensorListConcatLists TensorListConcatV2 TensorListElementShape
    TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
    TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack OptionalFromValue OptionalGetValue
    OptionalHasValue OptionalNone
    """
)

_TEXT = _names(
    """
    AsString ReduceJoin RegexFullMatch RegexReplace StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin
    StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip StringToHashBucket
    StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
    UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin Fingerprint
    """
)

_RANDOM_NUMBERS = _names(
    """
    AllCandidateSampler ComputeAccidentalHits LearnedUnigramCandidateSampler LogUniformCandidateSampler Multinomial
    ParameterizedTruncatedNormal RandomGamma RandomGammaGrad RandomIndexShuffle RandomPoisson RandomPoissonV2
    RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt RngReadAndSkip RngSkip
    SampleDistortedBoundingBox SampleDistortedBoundingBoxV2 SobolSample StatefulRandomBinomial
    StatefulStandardNormalV2 StatefulTruncatedNormal StatefulUniform StatefulUniformFullInt StatefulUniformInt
    StatelessMultinomial StatelessParameterizedTruncatedNormal StatelessRandomBinomial StatelessRandomGammaV2
    StatelessRandomGammaV3 StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg
    StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomPoisson StatelessRandomUniform
    StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomUniformInt
    StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessSampleDistortedBoundingBox StatelessShuffle
    StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal UniformCandidateSampler
    """
)

# Some functions of Keras are made of them. They compute, with or without XLA.
_XLA = _names(
    """
    XlaBroadcastHelper XlaConv XlaConvV2 XlaDot XlaDotV2 XlaDynamicSlice XlaDynamicUpdateSlice XlaEinsum XlaGather
    XlaKeyValueSort XlaOptimizationBarrier XlaPad XlaReduce XlaReducePrecision XlaReduceWindow XlaScatter
    XlaSelectAndScatter XlaSelfAdjointEig XlaSort XlaSvd XlaVariadicReduce XlaVariadicReduceV2 XlaVariadicSort
    """
)

# They are given the handle of a variable. None of them makes a handle, or finds one by its name.
_VARIABLES = _names(
    """
    AssignAddVariableOp AssignSubVariableOp AssignVariableOp ReadVariableOp ResourceApplyAdaMax
    ResourceApplyAdadelta ResourceApplyAdagrad ResourceApplyAdagradV2 ResourceApplyAdam ResourceApplyAdamWithAmsgrad
    ResourceApplyCenteredRMSProp ResourceApplyFtrl ResourceApplyFtrlV2 ResourceApplyGradientDescent
    ResourceApplyKerasMomentum ResourceApplyMomentum ResourceApplyRMSProp ResourceGather ResourceGatherNd
    ResourceScatterAdd ResourceScatterDiv ResourceScatterMax ResourceScatterMin ResourceScatterMul
    ResourceScatterNdAdd ResourceScatterNdMax ResourceScatterNdMin ResourceScatterNdSub ResourceScatterNdUpdate
    ResourceScatterSub ResourceScatterUpdate ResourceSparseApplyAdagrad ResourceSparseApplyAdagradV2
    ResourceSparseApplyKerasMomentum ResourceSparseApplyMomentum ResourceStridedSliceAssign VarIsInitializedOp
    VariableShape
    """
)

# Tables without a name, which the graph fills from its own constants.
_TABLES = _names(
    """
    AnonymousHashTable AnonymousMutableDenseHashTable AnonymousMutableHashTable AnonymousMutableHashTableOfTensors
    InitializeTableV2 LookupTableExportV2 LookupTableFindV2 LookupTableImportV2 LookupTableInsertV2
    LookupTableRemoveV2 LookupTableSizeV2
    """
)

# `PrintV2` may write to the standard streams only: see :func:`explaind_tf.runs.graphs.inspection.findings`.
_STANDARD_STREAMS = _names("Print PrintV2")

ALLOWED = frozenset().union(
    _VALUES,
    _CONTROL_FLOW,
    _ELEMENTWISE,
    _ACTIVATIONS,
    _REDUCTIONS,
    _ARRANGEMENTS,
    _LINEAR_ALGEBRA,
    _CONVOLUTIONS,
    _NORMALIZATION,
    _RECURRENCE,
    _IMAGES_AND_SOUND,
    _QUANTIZATION,
    _SPARSE_AND_RAGGED,
    _LISTS,
    _TEXT,
    _RANDOM_NUMBERS,
    _XLA,
    _VARIABLES,
    _TABLES,
    _STANDARD_STREAMS,
)
