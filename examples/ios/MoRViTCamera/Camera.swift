@preconcurrency import AVFoundation
import MoRViTKit

/// The back camera: a session for the preview, and a stream of frames that keeps only the newest.
final class Camera: NSObject, @unchecked Sendable {  // what changes does so on `queue`
    enum Failure: LocalizedError {
        case notAllowed
        case noCamera

        var errorDescription: String? {
            switch self {
            case .notAllowed: return "The app may not use the camera. Allow it in Settings, or choose a photo."
            case .noCamera: return "This device has no camera. Choose a photo."
            }
        }
    }

    /// Frames of a phone held upright are portrait.
    static let frameWidth = 720
    static let frameHeight = 1280

    let session = AVCaptureSession()
    let frames: AsyncStream<InputImage>

    private let queue = DispatchQueue(label: "Camera")
    private let newest: AsyncStream<InputImage>.Continuation
    private var isConfigured = false

    override init() {
        (frames, newest) = AsyncStream.makeStream(of: InputImage.self, bufferingPolicy: .bufferingNewest(1))
        super.init()
    }

    /// Asks for permission and begins to deliver.
    func start() async throws {
        guard await AVCaptureDevice.requestAccess(for: .video) else { throw Failure.notAllowed }
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            queue.async {
                done.resume(
                    with: Result {
                        try self.configure()
                        self.session.startRunning()
                    }
                )
            }
        }
    }

    /// Stops delivering.
    func stop() {
        queue.async { self.session.stopRunning() }
    }

    private func configure() throws {
        guard !isConfigured else { return }
        guard let device = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back) else {
            throw Failure.noCamera
        }
        let input = try AVCaptureDeviceInput(device: device)
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = .hd1280x720
        guard session.canAddInput(input), session.canAddOutput(output) else { throw Failure.noCamera }
        session.addInput(input)
        session.addOutput(output)
        if let connection = output.connection(with: .video), connection.isVideoRotationAngleSupported(90) {
            connection.videoRotationAngle = 90  // upright for a phone held upright
        }
        isConfigured = true
    }
}

extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection
    ) {
        guard let buffer = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        newest.yield(InputImage(buffer))
    }
}
