#if canImport(CoreML)
import CoreML
import CryptoKit
import Foundation
import MoRViTCore

/// The compiled form of a model, which Core ML opens: made once, and kept among the caches.
enum CompiledModel {
    /// The model that Xcode compiled into a bundle.
    static func url(named name: String, in bundle: Bundle) throws -> URL {
        guard let url = bundle.url(forResource: name, withExtension: "mlmodelc") else {
            throw MoRViTError.modelNotFound(place: "\(bundle.bundlePath) named \(name)")
        }
        return url
    }

    /// `url` itself when it is compiled; otherwise its compiled form, from the caches or made now.
    static func url(for url: URL, in caches: URL = .cachesDirectory) async throws -> URL {
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw MoRViTError.modelNotFound(place: url.path)
        }
        guard url.pathExtension != "mlmodelc" else { return url }
        let folder = caches.appending(path: "MoRViTKit", directoryHint: .isDirectory)
        let cached = folder.appending(path: "\(try key(of: url)).mlmodelc", directoryHint: .isDirectory)
        if FileManager.default.fileExists(atPath: cached.path) { return cached }
        let fresh = try await MLModel.compileModel(at: url)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        do {
            try FileManager.default.moveItem(at: fresh, to: cached)
        } catch where FileManager.default.fileExists(atPath: cached.path) {
            try? FileManager.default.removeItem(at: fresh)  // another task was faster
        }
        return cached
    }

    /// Changes when a file of the package or the system does: compiled models belong to both.
    private static func key(of package: URL) throws -> String {
        let keys: [URLResourceKey] = [.fileSizeKey, .contentModificationDateKey]
        let files = FileManager.default.enumerator(at: package, includingPropertiesForKeys: keys)
        var lines = [ProcessInfo.processInfo.operatingSystemVersionString]
        while let file = files?.nextObject() as? URL {
            let values = try file.resourceValues(forKeys: Set(keys))
            let changed = values.contentModificationDate?.timeIntervalSinceReferenceDate ?? 0
            lines.append("\(file.path) \(values.fileSize ?? 0) \(changed)")
        }
        let digest = SHA256.hash(data: Data(lines.sorted().joined(separator: "\n").utf8))
        return digest.prefix(16).map { String(format: "%02x", $0) }.joined()
    }
}
#endif
