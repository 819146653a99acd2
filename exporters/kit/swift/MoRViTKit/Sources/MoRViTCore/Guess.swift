import Foundation

/// One class of a prediction.
public struct Guess: Sendable, Hashable, Identifiable {
    /// Number of the class.
    public let index: Int
    /// Its name, or its number where the model has no names.
    public let label: String
    /// In [0, 1]; ``HeadActivation`` says whether those of all classes sum to 1.
    public let probability: Double

    /// Number of the class.
    public var id: Int { index }

    /// All values.
    public init(index: Int, label: String, probability: Double) {
        self.index = index
        self.label = label
        self.probability = probability
    }
}

/// Probabilities of logits, in double precision.
public func softmax(_ logits: [Float]) -> [Double] {
    let highest = Double(logits.max() ?? 0)
    let powers = logits.map { exp(Double($0) - highest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

extension Guess {
    /// The most probable classes, best first; of equal ones the lower number first.
    static func best(
        _ count: Int, logits: [Float], activation: HeadActivation, label: (Int) -> String
    ) -> [Guess] {
        let probabilities = activation.probabilities(of: logits)
        let order = logits.indices.sorted { left, right in
            logits[left] == logits[right] ? left < right : logits[left] > logits[right]
        }
        return order.prefix(max(count, 0)).map {
            Guess(index: $0, label: label($0), probability: probabilities[$0])
        }
    }
}

extension ModelDescription {
    /// The most probable classes, best first; of equal ones the lower number first.
    public func guesses(logits: [Float], count: Int = 5) -> [Guess] {
        Guess.best(count, logits: logits, activation: headActivation ?? .softmax, label: label)
    }
}
