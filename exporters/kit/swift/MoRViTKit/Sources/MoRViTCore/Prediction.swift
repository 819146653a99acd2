/// What a model returns for one image.
public struct Prediction: Sendable, Hashable {
    /// One number for each class, before the activation of the head.
    public let logits: [Float]
    /// What the logits mean.
    public let headActivation: HeadActivation
    /// A name for each class, if the model has names.
    public let labels: [String]?
    /// The bucket that ran.
    public let bucket: DispatchTable.Bucket
    /// The index of ``bucket`` in ``DispatchTable/buckets``.
    public let bucketIndex: Int
    /// Was a smaller bucket run first, in vain?
    public let didOverflow: Bool
    /// How many steps each patch ran; nil where the model does not return it.
    public let depth: DepthMap?
    /// How long it took.
    public let timing: Timing

    /// All values, for previews and tests.
    public init(
        logits: [Float], labels: [String]? = nil, bucket: DispatchTable.Bucket, bucketIndex: Int = 0,
        didOverflow: Bool = false, depth: DepthMap? = nil, timing: Timing = Timing(),
        headActivation: HeadActivation = .softmax
    ) {
        self.logits = logits
        self.headActivation = headActivation
        self.labels = labels
        self.bucket = bucket
        self.bucketIndex = bucketIndex
        self.didOverflow = didOverflow
        self.depth = depth
        self.timing = timing
    }

    /// The most probable classes, best first; of equal ones the lower index first.
    public func guesses(_ count: Int = 5) -> [Guess] {
        Guess.best(count, logits: logits, activation: headActivation) { index in
            labels.flatMap { $0.indices.contains(index) ? $0[index] : nil } ?? String(index)
        }
    }

    /// The most probable class; nil without logits. With a sigmoid head it may be absent: see ``present``.
    public var best: Guess? { guesses(1).first }

    /// What the head decides for, best first: the most probable class of a softmax head, or every class of a sigmoid
    /// head whose probability is above one half.
    public var present: [Guess] {
        switch headActivation {
        case .softmax: return guesses(1)
        case .sigmoid: return guesses(logits.count).filter { logits[$0.index] > 0 }
        }
    }

    /// How long the parts of a prediction took.
    public struct Timing: Sendable, Hashable {
        /// Resizing, turning and cropping.
        public let preprocess: Duration
        /// What runs before the bucket is known; zero where there is one bucket.
        public let stem: Duration
        /// The bucket's function, and `full` after an overflow. The first run of a bucket includes loading it.
        public let trunk: Duration

        /// All values.
        public init(preprocess: Duration = .zero, stem: Duration = .zero, trunk: Duration = .zero) {
            self.preprocess = preprocess
            self.stem = stem
            self.trunk = trunk
        }

        /// The sum of the parts.
        public var total: Duration { preprocess + stem + trunk }
    }
}
