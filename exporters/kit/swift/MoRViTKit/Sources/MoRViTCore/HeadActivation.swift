import Foundation

/// What the logits of a model mean.
public enum HeadActivation: String, Codable, Sendable, Hashable {
    /// The classes exclude each other, and their probabilities sum to 1.
    case softmax
    /// Each class is present or not, with a probability of its own: an image may have several classes, or none.
    case sigmoid

    /// Probabilities of logits, in double precision.
    public func probabilities(of logits: [Float]) -> [Double] {
        switch self {
        case .softmax: return MoRViTCore.softmax(logits)
        case .sigmoid: return MoRViTCore.sigmoid(logits)
        }
    }
}

/// Probabilities of logits that each stand for themselves, in double precision.
public func sigmoid(_ logits: [Float]) -> [Double] {
    logits.map { logit in
        let power = exp(-abs(Double(logit)))  // never overflows
        return (logit >= 0 ? 1 : power) / (1 + power)
    }
}
