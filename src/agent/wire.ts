// SPDX-License-Identifier: Apache-2.0

/**
 * What shim and agent say to each other (shim/shim.c): little-endian, a u32 length and that many bytes.
 *
 * Request: u32 number of the descriptor that holds CNI_NETNS (all ones: none), then three byte strings, each with a u32
 * length: type, environment (NUL after each variable), stdin. Answer: u32 exit code, then stdout and stderr likewise.
 */
export type ShimRequest = {
  readonly type: string
  readonly env: Record<string, string>
  readonly stdin: Uint8Array
  /** Descriptor number in the shim's process. */
  readonly netns: number | undefined
}

/** 1 MiB of configuration, and room for the largest environment that execve(2) takes in practice. */
export const REQUEST_BYTES_MAX = 2 << 20
const NO_NETNS = 0xffff_ffff
const decoder = new TextDecoder()
const encoder = new TextEncoder()

/** @param frame a request without its leading length @throws {RangeError} if it is none */
export function decodeRequest(frame: Uint8Array): ShimRequest {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  let offset = 4
  const next = () => {
    const length = offset + 4 <= frame.length ? view.getUint32(offset, true) : Number.POSITIVE_INFINITY
    if (offset + 4 + length > frame.length) throw new RangeError('Cannot decode request: it is cut off')
    const part = frame.subarray(offset + 4, offset + 4 + length)
    offset += 4 + length
    return part
  }
  const [type, environment, stdin] = [decoder.decode(next()), decoder.decode(next()), next()]
  const netns = view.getUint32(0, true)
  return { type, env: decodeEnvironment(environment), stdin, netns: netns === NO_NETNS ? undefined : netns }
}

/** A request without a namespace, with its leading length. */
export function encodeRequest({ type, env, stdin }: Omit<ShimRequest, 'netns'>): Uint8Array {
  const text = (value: string) => new TextEncoder().encode(value)
  const environment = Object.entries(env).map(([name, value]) => `${name}=${value}\0`)
  const parts = [text(type), text(environment.join('')), stdin]
  const frame = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 8))
  const view = new DataView(frame.buffer)
  view.setUint32(0, frame.length - 4, true)
  view.setUint32(4, NO_NETNS, true)
  let offset = 8
  for (const part of parts) {
    view.setUint32(offset, part.length, true)
    frame.set(part, offset + 4)
    offset += 4 + part.length
  }
  return frame
}

function decodeEnvironment(joined: string): Record<string, string> {
  // Without a prototype: a variable may be called __proto__.
  const env: Record<string, string> = Object.create(null)
  for (const entry of joined.split('\0')) {
    const equals = entry.indexOf('=')
    if (equals > 0) env[entry.slice(0, equals)] = entry.slice(equals + 1)
  }
  return env
}

/** The answer with its leading length. */
export function encodeAnswer(answer: { exitCode: number; stdout: Uint8Array; stderr: string }): Uint8Array {
  const stderr = encoder.encode(answer.stderr)
  const frame = new Uint8Array(16 + answer.stdout.length + stderr.length)
  const view = new DataView(frame.buffer)
  view.setUint32(0, frame.length - 4, true)
  view.setUint32(4, answer.exitCode, true)
  view.setUint32(8, answer.stdout.length, true)
  frame.set(answer.stdout, 12)
  view.setUint32(12 + answer.stdout.length, stderr.length, true)
  frame.set(stderr, 16 + answer.stdout.length)
  return frame
}
