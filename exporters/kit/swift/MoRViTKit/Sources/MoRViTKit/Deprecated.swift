#if canImport(CoreML)
import Foundation
import MoRViTCore

// Names of earlier versions: apps that use them compile, and Xcode offers the new ones.

extension MoRViTClassifier {
    /// Loads the model `MoRViT` that is in a bundle.
    @available(*, deprecated, renamed: "load(named:in:computeUnits:allowsUpscaling:)")
    public static func load(
        from bundle: Bundle, computeUnits: ComputeUnits = .all, allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        try await load(in: bundle, computeUnits: computeUnits, allowsUpscaling: allowsUpscaling)
    }

    /// Loads all functions.
    @available(*, deprecated, renamed: "loadAll()")
    public func openAll() throws { try loadAll() }
}
#endif
