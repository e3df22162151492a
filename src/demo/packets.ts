// SPDX-License-Identifier: Apache-2.0

import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import { formatIp } from '#base'
import { closeDescriptor, icmpSocket, receive } from '#libc'
import { ECHO_PORT, type Echo, type Orders } from './wire.ts'

const HOPS_MAX = 8
const HOP_MS = 500
const POLL_MS = 1

function bound(address: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4')
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(port, address, () => resolve(socket))
  })
}

/** Answers what reaches the address with the address of whoever sent it. */
export async function echo(address: string): Promise<undefined> {
  const socket = await bound(address, ECHO_PORT)
  socket.on('message', (_, sender) => socket.send(sender.address, sender.port, sender.address))
  socket.on('error', () => undefined)
}

/** One datagram there and back. @returns undefined: no answer in time */
export async function ask({ from, to, timeoutMs }: Orders['ask']['order']): Promise<Echo | undefined> {
  const socket = await bound(from, 0)
  try {
    const begin = performance.now()
    return await new Promise(resolve => {
      socket.on('message', payload => resolve({ seen: payload.toString(), ms: performance.now() - begin }))
      socket.on('error', () => resolve(undefined))
      socket.send('?', ECHO_PORT, to, error => error && resolve(undefined))
      setTimeout(resolve, timeoutMs, undefined)
    })
  } finally {
    socket.close()
  }
}

/**
 * The routers on the way: datagrams with a growing time to live, and the addresses of those who report its end.
 *
 * @returns one entry per router, undefined for a silent one; at most 8, also where the destination is never reached
 */
export async function trace({ from, to }: Orders['trace']['order']): Promise<(string | undefined)[]> {
  const icmp = icmpSocket()
  const socket = await bound(from, 0)
  const routers: (string | undefined)[] = []
  let arrived = false
  socket.on('message', () => {
    arrived = true
  })
  try {
    for (let timeToLive = 1; timeToLive <= HOPS_MAX && !arrived; timeToLive++) {
      socket.setTTL(timeToLive)
      socket.send('?', ECHO_PORT, to)
      const router = await firstReport(icmp, socket.address().port, () => arrived)
      if (!arrived) routers.push(router)
    }
    return routers
  } finally {
    socket.close()
    closeDescriptor(icmp)
  }
}

/** Who reports the end of a datagram from our port; undefined when it arrived, or nobody speaks. */
async function firstReport(icmp: number, port: number, arrived: () => boolean): Promise<string | undefined> {
  const buffer = new Uint8Array(2048)
  for (const end = performance.now() + HOP_MS; performance.now() < end && !arrived(); await sleep(POLL_MS)) {
    const packet = receive(icmp, buffer, 0)
    const router = packet && readTimeExceeded(packet, port)
    if (router !== undefined) return router
  }
  return undefined
}

/** RFC 792: IP header, ICMP header of 8 bytes, then the header and the first 8 bytes of the packet that ended. */
export function readTimeExceeded(packet: Uint8Array, sourcePort: number): string | undefined {
  const TIME_EXCEEDED = 11
  const UDP = 17
  const headerLength = (at: number) => (packet[at]! & 0x0f) * 4
  const icmp = packet.length > 0 ? headerLength(0) : 0
  const inner = icmp + 8
  if (packet.length < inner + 20 || packet[icmp] !== TIME_EXCEEDED || packet[inner + 9] !== UDP) return undefined
  const udp = inner + headerLength(inner)
  if (packet.length < udp + 4) return undefined
  const port = (packet[udp]! << 8) | packet[udp + 1]!
  return port === sourcePort ? formatIp(packet.slice(12, 16)) : undefined
}
