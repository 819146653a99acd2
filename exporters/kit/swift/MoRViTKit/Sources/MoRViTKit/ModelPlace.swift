#if canImport(CoreML)
import Foundation
import MoRViTCore

/// Where a model is.
enum ModelPlace {
    /// In an app.
    case named(String, in: Bundle)
    /// In a file.
    case url(URL)

    /// Opens the model in the runtime that its description names.
    func open(_ description: ModelDescription, computeUnits: ComputeUnits) async throws -> any PixelClassifying {
        switch description.runtime ?? .coreML {
        case .coreML:
            let functions = CoreMLFunctions(
                compiled: try await compiled, description: description, computeUnits: computeUnits
            )
            return Dispatcher(description: description, functions: functions)
        case .coreAI:
            #if canImport(CoreAI)
            if #available(iOS 27, macOS 27, tvOS 27, watchOS 27, visionOS 27, *) {
                let functions = try await CoreAIFunctions(
                    contentsOf: try asset, description: description, computeUnits: computeUnits
                )
                return Dispatcher(description: description, functions: functions)
            }
            #endif
            throw MoRViTError.needsNewerSystem(minimumIOS: description.minimumIOS)
        }
    }

    /// What Core ML opens.
    private var compiled: URL {
        get async throws {
            switch self {
            case .named(let name, let bundle): return try CompiledModel.url(named: name, in: bundle)
            case .url(let url): return try await CompiledModel.url(for: url)
            }
        }
    }

    #if canImport(CoreAI)
    /// What Core AI opens.
    @available(iOS 27, macOS 27, tvOS 27, watchOS 27, visionOS 27, *)
    private var asset: URL {
        get throws {
            switch self {
            case .named(let name, let bundle): return try CoreAIFunctions.url(named: name, in: bundle)
            case .url(let url): return url
            }
        }
    }
    #endif
}
#endif
