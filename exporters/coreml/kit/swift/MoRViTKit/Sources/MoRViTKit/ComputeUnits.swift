#if canImport(CoreML)
import CoreML

/// Where Core ML may run the model. It may run parts elsewhere; `MLComputePlan` reports where.
public enum ComputeUnits: String, CaseIterable, Sendable, Identifiable {
    /// Whatever Core ML chooses.
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

    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpuAndNeuralEngine: return .cpuAndNeuralEngine
        case .cpuAndGPU: return .cpuAndGPU
        case .cpuOnly: return .cpuOnly
        }
    }
}
#endif
