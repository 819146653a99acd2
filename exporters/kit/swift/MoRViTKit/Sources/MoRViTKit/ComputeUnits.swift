#if canImport(CoreAI)
import CoreAI
#endif
#if canImport(CoreML)
import CoreML
#endif

/// Where the runtime may run the model.
///
/// Core ML keeps to the choice; `MLComputePlan` reports where each operation is placed. Core AI takes a choice other
/// than ``cpuOnly`` as a preference and may use every unit; Instruments shows which ones it used.
public enum ComputeUnits: String, CaseIterable, Sendable, Identifiable {
    /// Whatever the runtime chooses.
    case all
    /// The Neural Engine, and the CPU for what it cannot run.
    case cpuAndNeuralEngine
    /// The GPU, and the CPU for what it cannot run.
    case cpuAndGPU
    /// The CPU alone: the reference to compare the others with.
    case cpuOnly

    /// The case itself.
    public var id: Self { self }

    /// A name to show.
    public var title: String {
        switch self {
        case .all: return "Automatic"
        case .cpuAndNeuralEngine: return "Neural Engine"
        case .cpuAndGPU: return "GPU"
        case .cpuOnly: return "CPU"
        }
    }

    #if canImport(CoreML)
    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpuAndNeuralEngine: return .cpuAndNeuralEngine
        case .cpuAndGPU: return .cpuAndGPU
        case .cpuOnly: return .cpuOnly
        }
    }
    #endif

    #if canImport(CoreAI)
    @available(iOS 27, macOS 27, tvOS 27, watchOS 27, visionOS 27, *)
    var coreAI: SpecializationOptions {
        switch self {
        case .all: return .default
        case .cpuAndNeuralEngine: return SpecializationOptions(preferredComputeUnitKind: .neuralEngine)
        case .cpuAndGPU: return SpecializationOptions(preferredComputeUnitKind: .gpu)
        case .cpuOnly: return .cpuOnly
        }
    }
    #endif
}
