// SPDX-License-Identifier: Apache-2.0

/** An IP address: 4 or 16 bytes in network order. */
export type Ip = Uint8Array
/** A prefix: an address, host bits allowed, and its length in bits. */
export type Prefix = { readonly ip: Ip; readonly length: number }

/** Parses an address in text, as Go's `net.ParseIP` does: no leading zeros, no zone. Undefined if it is none. */
export function tryParseIp(text: string): Ip | undefined {
  return text.includes(':') ? tryParseV6(text) : tryParseV4(text)
}

/** As `tryParseIp`. @throws {SyntaxError} naming the text. */
export function parseIp(text: string): Ip {
  const ip = tryParseIp(text)
  if (ip === undefined) throw new SyntaxError(`Cannot parse IP address "${text}"`)
  return ip
}

function tryParseV4(text: string): Ip | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  const ip = new Uint8Array(4)
  for (const [index, part] of parts.entries()) {
    ip[index] = Number(part)
    // A leading zero could mean octal: refused, as in Go since 1.17, with all else that a byte is not written as.
    if (String(ip[index]) !== part) return undefined
  }
  return ip
}

function tryParseV6(text: string): Ip | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const groups = halves.map(half => (half === '' ? [] : half.split(':')))
  const [head, tail] = [groups[0]!, groups[1]]
  const last = tail ?? head
  const dotted = last.at(-1)
  if (dotted?.includes('.')) {
    const v4 = tryParseV4(dotted)
    if (v4 === undefined) return undefined
    last.splice(-1, 1, hex(v4[0]! * 256 + v4[1]!), hex(v4[2]! * 256 + v4[3]!))
  }
  const written = head.length + (tail?.length ?? 0)
  if (tail === undefined ? written !== 8 : written > 7) return undefined
  const all = tail === undefined ? head : [...head, ...Array<string>(8 - written).fill('0'), ...tail]
  const ip = new Uint8Array(16)
  for (const [index, group] of all.entries()) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined
    const value = Number.parseInt(group, 16)
    ip[index * 2] = value >> 8
    ip[index * 2 + 1] = value & 0xff
  }
  return ip
}

const hex = (value: number) => value.toString(16)

/** Canonical text (RFC 5952); an IPv4-mapped IPv6 address is written as IPv4, as Go does. */
export function formatIp(ip: Ip): string {
  if (ip.length === 4) return ip.join('.')
  if (isMapped(ip)) return ip.subarray(12).join('.')
  const groups = Array.from({ length: 8 }, (_, index) => ip[index * 2]! * 256 + ip[index * 2 + 1]!)
  const zeros = longestZeroRun(groups)
  if (zeros.length < 2) return groups.map(hex).join(':')
  return `${groups.slice(0, zeros.start).map(hex).join(':')}::${groups
    .slice(zeros.start + zeros.length)
    .map(hex)
    .join(':')}`
}

function longestZeroRun(groups: number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 }
  for (let start = 0; start < groups.length; start++) {
    let length = 0
    while (groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  return best
}

const isMapped = (ip: Ip) =>
  ip.length === 16 && ip.subarray(0, 10).every(byte => byte === 0) && ip[10] === 0xff && ip[11] === 0xff

/** True for 4 bytes. */
export const isV4 = (ip: Ip): boolean => ip.length === 4

/** True if both are the same address. */
export const ipEquals = (a: Ip, b: Ip): boolean => a.length === b.length && a.every((byte, index) => byte === b[index])

/** Negative, zero, positive: IPv4 before IPv6, then by value. */
export function compareIp(a: Ip, b: Ip): number {
  if (a.length !== b.length) return a.length - b.length
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return a[index]! - b[index]!
  return 0
}

/** The address `distance` further on (may be negative), undefined where the family ends. */
export function addToIp(ip: Ip, distance: bigint): Ip | undefined {
  const value = ipToBigInt(ip) + distance
  return value < 0n || value >> BigInt(ip.length * 8) !== 0n ? undefined : bigIntToIp(value, ip.length)
}

/** The address as an unsigned number. */
export const ipToBigInt = (ip: Ip): bigint => ip.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n)

/** The opposite of `ipToBigInt`; `bytes` is 4 or 16. */
export function bigIntToIp(value: bigint, bytes: number): Ip {
  const ip = new Uint8Array(bytes)
  for (let index = bytes - 1; index >= 0; index--, value >>= 8n) ip[index] = Number(value & 0xffn)
  return ip
}

/** Parses `address/length`. Undefined if it is none. */
export function tryParsePrefix(text: string): Prefix | undefined {
  const slash = text.lastIndexOf('/')
  if (slash < 0) return undefined
  const ip = tryParseIp(text.slice(0, slash))
  const digits = text.slice(slash + 1)
  if (ip === undefined || !/^(0|[1-9]\d{0,2})$/.test(digits) || Number(digits) > ip.length * 8) return undefined
  return { ip, length: Number(digits) }
}

/** As `tryParsePrefix`. @throws {SyntaxError} naming the text. */
export function parsePrefix(text: string): Prefix {
  const prefix = tryParsePrefix(text)
  if (prefix === undefined) throw new SyntaxError(`Cannot parse prefix "${text}": want ADDRESS/LENGTH`)
  return prefix
}

/** `address/length`, host bits kept. */
export const formatPrefix = (prefix: Prefix): string => `${formatIp(prefix.ip)}/${prefix.length}`

/** The prefix that holds this one address: /32 or /128. */
export const hostPrefix = (ip: Ip): Prefix => ({ ip, length: ip.length * 8 })

/** The same prefix without host bits. */
export function networkOf(prefix: Prefix): Prefix {
  return { ip: prefix.ip.map((byte, index) => byte & maskByte(prefix.length, index)), length: prefix.length }
}

/** The last address of an IPv4 network, by which all of it is spoken to; undefined where there is none (RFC 3021). */
export function broadcastOf({ ip, length }: Prefix): Ip | undefined {
  if (!isV4(ip) || length > 30) return undefined
  return ip.map((byte, index) => byte | (~maskByte(length, index) & 0xff))
}

/** True if the address lies in the prefix; never across families. */
export function prefixContains(prefix: Prefix, ip: Ip): boolean {
  return (
    ip.length === prefix.ip.length &&
    ip.every((byte, index) => ((byte ^ prefix.ip[index]!) & maskByte(prefix.length, index)) === 0)
  )
}

const maskByte = (length: number, index: number) => {
  const bits = Math.min(8, Math.max(0, length - index * 8))
  return (0xff << (8 - bits)) & 0xff
}
