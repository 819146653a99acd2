/// What a model returns for one image that was exported for its features or tokens: an array instead of classes.
public struct Embedding: Sendable, Hashable {
    /// The numbers, row by row.
    public let values: [Float]
    /// [dim] of features; [patches, dim] of tokens, the patches of the image row by row.
    public let shape: [Int]
    /// The bucket that ran.
    public let bucket: DispatchTable.Bucket
    /// The index of ``bucket`` in ``DispatchTable/buckets``.
    public let bucketIndex: Int
    /// Was a smaller bucket run first, in vain?
    public let didOverflow: Bool
    /// How many steps each patch ran; nil where the model does not return it.
    public let depth: DepthMap?
    /// How long it took.
    public let timing: Prediction.Timing

    /// All values, for previews and tests.
    ///
    /// - Throws: ``MoRViTError/unexpectedOutput(reason:)`` when `values` do not fill `shape`.
    public init(
        values: [Float], shape: [Int], bucket: DispatchTable.Bucket, bucketIndex: Int = 0,
        didOverflow: Bool = false, depth: DepthMap? = nil, timing: Prediction.Timing = Prediction.Timing()
    ) throws {
        guard !shape.isEmpty, values.count == shape.reduce(1, *) else {
            throw MoRViTError.unexpectedOutput(reason: "got \(values.count) numbers, expected shape \(shape)")
        }
        self.values = values
        self.shape = shape
        self.bucket = bucket
        self.bucketIndex = bucketIndex
        self.didOverflow = didOverflow
        self.depth = depth
        self.timing = timing
    }

    /// One vector for each patch of tokens; the only vector of features.
    public var vectors: [ArraySlice<Float>] {
        guard let length = shape.last, length > 0 else { return [] }
        return stride(from: 0, to: values.count, by: length).map { values[$0..<$0 + length] }
    }
}
