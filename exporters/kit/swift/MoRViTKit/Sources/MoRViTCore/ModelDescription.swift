import Foundation

/// What an app must know of an exported model: image size, preprocessing, buckets, labels.
///
/// `morvit-deploy export` writes it beside the model, as `MoRViT.json` for `MoRViT.mlpackage` or
/// `MoRViT.aimodel`. The two belong together: rename both alike, and add both to the app's target.
public struct ModelDescription: Codable, Sendable, Hashable {
    /// The version of this file's format.
    public static let format = "morvit-kit/1"
    /// The name under which models are exported: that of `MoRViT.mlpackage` or `MoRViT.aimodel`, and `MoRViT.json`.
    public static let defaultName = "MoRViT"

    /// ``ModelDescription/format`` of the file that was read.
    public let format: String
    /// The framework that runs the model; nil: Core ML.
    public let runtime: Runtime?
    /// sha256 of the checkpoint that the model was made from.
    public let checkpoint: String
    /// Precision of activations: `fp32` or `fp16`.
    public let precision: String
    /// Form of the weights: `float`, `int8`, `int4`, `palette8`, `palette6` or `palette4`.
    public let weights: String
    /// The oldest iOS that loads the model; iOS 18 is macOS 15.
    public let minimumIOS: Int
    /// How the model takes its image.
    public let input: Input
    /// Side of the square image that the model takes, in pixels.
    public let imageSize: Int
    /// Side of a patch, in pixels.
    public let patchSize: Int
    /// Number of classes.
    public let classes: Int
    /// A name for each class, if the checkpoint has names.
    public let labels: [String]?
    /// What the model returns; nil: logits.
    public let output: Output?
    /// Shape of one image's output: [dim] of features, [patches, dim] of tokens; nil: ``classes`` logits.
    public let outputShape: [Int]?
    /// What the logits mean; nil in files of older versions: softmax.
    public let headActivation: HeadActivation?
    /// From a picture to the model's image.
    public let preprocessing: Preprocessing
    /// How a bucket is chosen, and what the buckets are.
    public let dispatch: DispatchTable
    /// Names of the functions in the package, in order.
    public let functions: [String]
    /// Names of the values that the stem hands to the bucket's function.
    public let carried: [String]
    /// Most steps that a patch can run.
    public let steps: Int
    /// Does the model return how many steps each patch ran?
    public let answersDepth: Bool

    /// A framework that runs models.
    public enum Runtime: String, Codable, Sendable {
        /// Core ML: an `.mlpackage`, which Xcode compiles into the app.
        case coreML = "coreml"
        /// Core AI: an `.aimodel`.
        case coreAI = "coreai"
    }

    /// How the model takes its image.
    public enum Input: String, Codable, Sendable {
        /// An RGB image; normalization is inside the model.
        case image
        /// Normalized numbers, (1, 3, height, width).
        case normalized = "normalised"  // the word in files of format morvit-kit/1
    }

    /// What a model returns for an image.
    public enum Output: String, Codable, Sendable {
        /// One number for each class: ``MoRViTClassifier`` makes a ``Prediction`` of them.
        case logits
        /// The vector that the head reads: an ``Embedding`` of shape [dim].
        case features
        /// The state of every patch, row by row: an ``Embedding`` of shape [patches, dim].
        case tokens
    }

    /// Patches in a row, and rows.
    public var patchesPerSide: Int { imageSize / patchSize }

    /// Is a bucket chosen for each image? Then the model has a stem and one function for each bucket.
    public var isAdaptive: Bool { dispatch.buckets.count > 1 }

    /// The name of a class: its label, or its number.
    public func label(of index: Int) -> String {
        labels.flatMap { $0.indices.contains(index) ? $0[index] : nil } ?? String(index)
    }

    /// Reads the description of a model that was added to an app or a package.
    ///
    /// - Parameters:
    ///   - name: Name of the file without `.json`: `Dogs` for a model added as `Dogs.mlpackage` or `Dogs.aimodel`.
    ///   - bundle: The bundle of the target that the file was added to.
    /// - Throws: ``MoRViTError/unreadableDescription(reason:)`` when the file is missing or altered.
    public init(named name: String = defaultName, in bundle: Bundle = .main) throws {
        guard let url = bundle.url(forResource: name, withExtension: "json") else {
            throw MoRViTError.unreadableDescription(reason: "there is no \(name).json in \(bundle.bundlePath)")
        }
        try self.init(contentsOf: url)
    }

    /// Reads a description from a file.
    ///
    /// - Throws: ``MoRViTError/unreadableDescription(reason:)`` when the file is missing or altered.
    public init(contentsOf url: URL) throws {
        let data: Data
        do {
            data = try Data(contentsOf: url)
        } catch {
            throw MoRViTError.unreadableDescription(reason: "\(url.path): \(error.localizedDescription)")
        }
        try self.init(json: data)
    }

    /// Reads the text of a description and checks that its parts agree.
    ///
    /// - Throws: ``MoRViTError/unreadableDescription(reason:)``.
    public init(json: Data) throws {
        do {
            self = try JSONDecoder().decode(ModelDescription.self, from: json)
        } catch {
            throw MoRViTError.unreadableDescription(reason: String(describing: error))
        }
        if let problem {
            throw MoRViTError.unreadableDescription(reason: problem)
        }
    }

    /// All values, for previews and tests. They are not checked.
    public init(
        checkpoint: String = "", precision: String = "fp32", weights: String = "float", minimumIOS: Int = 17,
        input: Input = .image, imageSize: Int, patchSize: Int, classes: Int, labels: [String]? = nil,
        preprocessing: Preprocessing, dispatch: DispatchTable, functions: [String] = ["main"],
        carried: [String] = [], steps: Int, answersDepth: Bool = false,
        headActivation: HeadActivation? = nil, runtime: Runtime? = nil, output: Output? = nil,
        outputShape: [Int]? = nil
    ) {
        format = Self.format
        self.runtime = runtime
        self.checkpoint = checkpoint
        self.precision = precision
        self.weights = weights
        self.minimumIOS = minimumIOS
        self.input = input
        self.imageSize = imageSize
        self.patchSize = patchSize
        self.classes = classes
        self.labels = labels
        self.output = output
        self.outputShape = outputShape
        self.headActivation = headActivation
        self.preprocessing = preprocessing
        self.dispatch = dispatch
        self.functions = functions
        self.carried = carried
        self.steps = steps
        self.answersDepth = answersDepth
    }

    private var problem: String? {
        if format != Self.format {
            return "format: got \(format), expected \(Self.format)"
        }
        if imageSize < 1 || patchSize < 1 || imageSize % patchSize != 0 {
            return "imageSize: got \(imageSize), expected a multiple of patchSize \(patchSize)"
        }
        if preprocessing.imageSize != imageSize {
            return "preprocessing.imageSize: got \(preprocessing.imageSize), expected \(imageSize)"
        }
        if let problem = preprocessing.problem {
            return "preprocessing.\(problem)"
        }
        if let labels, labels.count != classes {
            return "labels: got \(labels.count) names, expected \(classes)"
        }
        if let problem = outputProblem {
            return "outputShape: \(problem)"
        }
        let names = dispatch.buckets.map(\.name)
        let expected = names.count > 1 ? ["stem"] + names : ["main"]
        if names.isEmpty || functions != expected {
            return "functions: got \(functions), expected \(expected) for the buckets \(names)"
        }
        return nil
    }

    /// Shapes have the axes of their output; tokens are as many as patches.
    private var outputProblem: String? {
        let patches = patchesPerSide * patchesPerSide
        let (got, shape) = ("got \(outputShape.map(String.init(describing:)) ?? "none")", outputShape ?? [])
        switch output ?? .logits {
        case .logits:
            return outputShape == nil ? nil : "\(got), expected none with logits"
        case .features:
            return shape.count == 1 && shape[0] > 0 ? nil : "\(got), expected [dim]"
        case .tokens:
            return shape.count == 2 && shape[0] == patches && shape[1] > 0 ? nil : "\(got), expected [\(patches), dim]"
        }
    }
}
