import Foundation

/// What can go wrong, with what was received, what was expected and what to do.
public enum MoRViTError: Error, Equatable, Sendable {
    /// The model's description, such as `MoRViT.json`, is missing, altered or of another version.
    case unreadableDescription(reason: String)
    /// No model where it was looked for.
    case modelNotFound(place: String)
    /// The model is not the one that the description belongs to.
    case modelMismatch(reason: String)
    /// This system does not open the model, or the app was built for older systems than the model's.
    case needsNewerSystem(minimumIOS: Int)
    /// The picture is smaller than the square that the model looks at.
    case imageTooSmall(width: Int, height: Int, needed: Int)
    /// Prepared pixels are not of the model's image size.
    case wrongSize(width: Int, height: Int, expected: Int)
    /// Prepared pixels are not three bytes for each pixel.
    case wrongByteCount(got: Int, expected: Int)
    /// An EXIF orientation that does not exist.
    case unknownOrientation(Int)
    /// The picture could not be read or resized; `code` is the system's.
    case unusablePicture(step: String, code: Int)
    /// The model was exported to return something else than the call gives.
    case otherOutput(ModelDescription.Output)
    /// The model returned something that it cannot return.
    case unexpectedOutput(reason: String)
}

extension MoRViTError: LocalizedError {
    public var errorDescription: String? {
        switch self {
        case .unreadableDescription(let reason):
            return "The description of the model cannot be read: \(reason)."
        case .modelNotFound(let place):
            return "There is no MoRViT model in \(place)."
        case .modelMismatch(let reason):
            return "The model is not the one that its description belongs to: \(reason)."
        case .needsNewerSystem(let minimumIOS):
            return "The model needs iOS \(minimumIOS) or newer, and an app that was built with that system's SDK."
        case .imageTooSmall(let width, let height, let needed):
            return "The picture is \(width)×\(height) pixels, smaller than the model's \(needed)×\(needed)."
        case .wrongSize(let width, let height, let expected):
            return "Got \(width)×\(height) prepared pixels, expected \(expected)×\(expected)."
        case .wrongByteCount(let got, let expected):
            return "Got \(got) bytes of pixels, expected \(expected): red, green and blue of each."
        case .unknownOrientation(let value):
            return "Got orientation \(value), expected an EXIF orientation from 1 to 8."
        case .unusablePicture(let step, let code):
            return "The picture cannot be used: \(step) failed with code \(code)."
        case .otherOutput(let output):
            return "The model returns \(output.rawValue), not \(output == .logits ? "an array" : "classes")."
        case .unexpectedOutput(let reason):
            return "The model's output cannot be read: \(reason)."
        }
    }

    public var recoverySuggestion: String? {
        switch self {
        case .unreadableDescription, .modelMismatch:
            return "Add the model and MoRViT.json of the same bundle to the app's target; rename both alike."
        case .modelNotFound:
            return "Add the model to the app's target, pass the name that it has there, or pass its URL."
        case .needsNewerSystem:
            return "Update the system, or export for an older one: --target coreml, with --ios 17 for one function."
        case .imageTooSmall:
            return "Give a larger picture, or set allowsUpscaling."
        case .wrongSize:
            return "Resize and crop first, or give the picture as an InputImage."
        case .wrongByteCount:
            return "Give RGB bytes, row by row, without padding."
        case .unknownOrientation:
            return "Pass the picture's CGImagePropertyOrientation."
        case .unusablePicture:
            return "Convert the picture to 8-bit RGB."
        case .otherOutput(let output):
            return output == .logits
                ? "Call predict(_:), or export the checkpoint with --output features or tokens."
                : "Call embed(_:), or export the checkpoint without --output."
        case .unexpectedOutput:
            return "Try other compute units; if it remains, export again and run morvit-deploy verify."
        }
    }
}
