import Foundation

/// What an app must know of the exported model: image size, preprocessing, buckets, labels.
///
/// `morvit-deploy export` writes it to `model.json`; ``bundled()`` reads it.
public struct ModelDescription: Codable, Sendable, Equatable {
    /// The version of this file's format.
    public static let format = "morvit-kit/1"

    /// ``ModelDescription/format`` of the file that was read.
    public let format: String
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
    /// Does the model answer how many steps each patch ran?
    public let answersDepth: Bool

    /// How the model takes its image.
    public enum Input: String, Codable, Sendable {
        /// An RGB image; normalisation is inside the model.
        case image
        /// Normalised numbers, (1, 3, height, width).
        case normalised
    }

    /// Patches in a row, and rows.
    public var patchesPerSide: Int { imageSize / patchSize }

    /// Is a bucket chosen for each image? Then the model has a stem and one function for each bucket.
    public var isAdaptive: Bool { dispatch.buckets.count > 1 }

    /// The name of a class: its label, or its number.
    public func label(of index: Int) -> String {
        labels.flatMap { $0.indices.contains(index) ? $0[index] : nil } ?? String(index)
    }

    /// The description of the model that this package was generated with.
    ///
    /// - Throws: ``MoRViTError/unreadableDescription(reason:)`` when the resource is missing or altered.
    public static func bundled() throws -> ModelDescription {
        guard let url = Bundle.module.url(forResource: "model", withExtension: "json") else {
            throw MoRViTError.unreadableDescription(reason: "model.json is not among the package's resources")
        }
        do {
            return try ModelDescription(json: Data(contentsOf: url))
        } catch let error as MoRViTError {
            throw error
        } catch {
            throw MoRViTError.unreadableDescription(reason: error.localizedDescription)
        }
    }

    /// Reads the text of a `model.json` and checks that its parts agree.
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
        if let labels, labels.count != classes {
            return "labels: got \(labels.count) names, expected \(classes)"
        }
        let names = dispatch.buckets.map(\.name)
        let expected = names.count > 1 ? ["stem"] + names : ["main"]
        if names.isEmpty || functions != expected {
            return "functions: got \(functions), expected \(expected) for the buckets \(names)"
        }
        return nil
    }
}
