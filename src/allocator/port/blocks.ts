// SPDX-License-Identifier: Apache-2.0

// Addresses that come and go in aligned blocks, so that one prefix stands for all of a block. Pure.

import {
  addToIp,
  bigIntToIp,
  broadcastOf,
  compareIp,
  formatIp,
  ipToBigInt,
  networkOf,
  parseIp,
  parsePrefix,
  prefixContains,
} from '#base'
import { addressesOfBlock, blockOf } from '../shared/cover.ts'
import type { PortAddress } from './plan.ts'

/** A subnet from which blocks are taken. */
export type BlockSubnet = {
  readonly cidr: string
  readonly gateway: string | undefined
  /** Where Neutron gives addresses from, if it says so; the whole subnet otherwise. */
  readonly pools: readonly { readonly start: string; readonly end: string }[]
}

/** Starts of blocks that are looked at; in a larger subnet a free one is found among so many. */
const STARTS_MAX = 4096

/**
 * Addresses to ask for: whole free blocks while at least half of one is needed for `count`, then single ones beside what
 * the port has. Undefined where no block is free: then any address will do.
 *
 * @param taken addresses that anybody has
 * @param random between 0 and 1: nodes that look at the same moment shall not all choose the first
 */
export function chooseBlock(
  subnet: BlockSubnet,
  size: number,
  taken: ReadonlySet<string>,
  random: number,
): string[] | undefined {
  const starts = startsOf(subnet, size)
  const offset = Math.floor(random * starts.length)
  for (let at = 0; at < starts.length; at++) {
    const addresses = addressesOfBlock(starts[(at + offset) % starts.length]!, size)
    if (!addresses.some(each => taken.has(each))) return addresses
  }
  return undefined
}

/** The blocks that lie within what Neutron gives, without network, broadcast and gateway address. */
function startsOf(subnet: BlockSubnet, size: number) {
  const prefix = networkOf(parsePrefix(subnet.cidr))
  const last = addToIp(prefix.ip, (1n << BigInt(prefix.ip.length * 8 - prefix.length)) - 1n)!
  const pools = subnet.pools.length === 0 ? [{ start: formatIp(prefix.ip), end: formatIp(last) }] : subnet.pools
  const barred = [prefix.ip, broadcastOf(prefix), subnet.gateway === undefined ? undefined : parseIp(subnet.gateway)]
    .filter(each => each !== undefined)
    .map(formatIp)
  const starts = []
  for (const pool of pools) {
    const [from, to] = [parseIp(pool.start), parseIp(pool.end)]
    const step = BigInt(size)
    let at = ((ipToBigInt(from) + step - 1n) / step) * step
    for (; starts.length < STARTS_MAX && at + step - 1n <= ipToBigInt(to); at += step) {
      const ip = bigIntToIp(at, from.length)
      if (!prefixContains(prefix, ip)) continue
      if (!barred.some(each => compareIp(blockOf(each, size), ip) === 0)) starts.push(ip)
    }
  }
  return starts
}

/**
 * Of the addresses that could go, those that go with the whole of their block: the others would tear it into many prefixes,
 * and stay.
 *
 * @param loose addresses that nobody has and that nothing leads to
 * @param staying all others of the port
 * @param surplus how many of them may go
 */
export function wholeBlocks(
  loose: readonly PortAddress[],
  staying: readonly string[],
  size: number,
  surplus: number,
): PortAddress[] {
  const nameOf = (address: string) => formatIp(blockOf(address, size))
  const needed = new Set(staying.map(nameOf))
  const idle = [...Map.groupBy(loose, each => nameOf(each.address))].filter(([block]) => !needed.has(block))
  const going: PortAddress[] = []
  // The one that was used last stays longest.
  const usedMs = (block: readonly PortAddress[]) => Math.max(...block.map(each => each.changedMs))
  for (const [, block] of idle.toSorted(([, a], [, b]) => usedMs(a) - usedMs(b)))
    if (going.length + block.length <= surplus) going.push(...block)
  return going
}
