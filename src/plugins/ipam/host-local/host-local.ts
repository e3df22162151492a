// SPDX-License-Identifier: Apache-2.0

import { readFileSync } from 'node:fs'
import {
  candidates,
  formatRangeSet,
  isGateway,
  type Journal,
  type Owner,
  openReservations,
  type RangeSet,
  type Reservations,
  rangeOf,
} from '#allocator'
import { formatIp, formatPrefix, type Ip, parseIp, tryParseIp, tryParsePrefix } from '#base'
import {
  type Call,
  CniError,
  codes,
  type Dns,
  type Plugin,
  type Result,
  type Ip as ResultIp,
  type ValidAttachment,
} from '#cni'
import type { World } from '../../world.ts'
import { checkConfig, directoryOf, type HostLocalConfig, readConfig, tryDirectoryOf } from './config.ts'
import { checkDataDirectory } from './data-directory.ts'
import { parseResolvConf } from './resolv-conf.ts'

/** An empty file is what a power cut leaves of a reservation; one that is being written is never so old. */
const EMPTY_FILE_MS = 60_000

/** The kernel takes the time of a file from a clock that stands still between two ticks (CONFIG_HZ=100: 10 ms). */
const FILE_CLOCK_MS = 20

/** Addresses from ranges of this node's configuration, kept as the reference `host-local` keeps them. */
export const hostLocal: Plugin<World> = {
  type: 'host-local',
  needsNetns: false,
  add,
  del,
  check,
  status,
  gc,
}

async function add(call: Call, world: World): Promise<Result> {
  const config = readConfig(call)
  const dns = config.resolvConf === '' ? undefined : readDns(config.resolvConf)
  using reservations = await openReservations(directoryOf(call), { ...optionsOf(call, world), access: 'create' })
  await refuseDuplicate(reservations, config.sets, call)
  using undo = new DisposableStack()
  undo.defer(() => reservations.takeBack())
  const ips = allocate(reservations, config, call)
  undo.move()
  return {
    ips,
    ...(config.routes.length === 0 ? {} : { routes: [...config.routes] }),
    ...(dns === undefined ? {} : { dns }),
  }
}

async function del(call: Call, world: World): Promise<void> {
  const directory = tryDirectoryOf(call)
  if (directory === undefined) return
  using reservations = await openReservations(directory, optionsOf(call, world))
  if (reservations === undefined) return
  const own = await reservations.ownedBy(call)
  const addresses = own.length > 0 ? own : await reservations.ownedBy(containerAlone(call))
  releaseAll(reservations, addresses)
}

async function check(call: Call, world: World): Promise<void> {
  using reservations = await openReservations(directoryOf(call), { ...optionsOf(call, world), access: 'read' })
  const addresses = reservations === undefined ? [] : await ownedOrLegacy(reservations, call)
  if (addresses.length === 0)
    throw checkFailed(`host-local: Failed to find address added by container ${call.containerId}`)
  if (call.prevResult === undefined) return
  const told = (call.prevResult.ips ?? [])
    .map(each => tryParsePrefix(each.address)?.ip)
    .filter(ip => ip !== undefined)
    .map(formatIp)
  const untold = addresses.filter(address => !told.includes(address))
  if (untold.length > 0)
    throw checkFailed(`host-local: ${untold.join(', ')} is reserved for ${call.containerId}, but not in prevResult`)
  // Addresses outside of our ranges are another plugin's.
  const { sets } = checkConfig(call)
  const isOurs = (address: string) => sets.some(set => rangeOf(set, parseIp(address)) !== undefined)
  const unreserved = told.filter(address => isOurs(address) && !addresses.includes(address))
  if (unreserved.length > 0)
    throw checkFailed(`host-local: ${unreserved.join(', ')} is in prevResult, but not reserved for ${call.containerId}`)
}

async function status(call: Call): Promise<void> {
  checkConfig(call)
  checkDataDirectory(directoryOf(call))
}

async function gc(call: Call, world: World, valid: readonly ValidAttachment[] | undefined) {
  if (valid === undefined) return
  // What came while this call was under way cannot be in its list.
  const startedMs = (world.longLived ? Date.now() : performance.timeOrigin) - FILE_CLOCK_MS
  using reservations = await openReservations(directoryOf(call), optionsOf(call, world))
  if (reservations === undefined) return
  const isValid = (owner: Owner) =>
    valid.some(each => each.containerId === owner.containerId && (owner.ifName === '' || each.ifName === owner.ifName))
  const nobodys = (await reservations.list()).filter(each =>
    each.containerId === ''
      ? reservations.isOlder(each.address, startedMs - EMPTY_FILE_MS, { empty: true })
      : !isValid(each) && reservations.isOlder(each.address, startedMs),
  )
  releaseAll(
    reservations,
    nobodys.map(each => each.address),
  )
}

/** Checked for all sets before anything is taken, so that the call that fails has nothing to give back. */
async function refuseDuplicate(reservations: Reservations, sets: readonly RangeSet[], call: Call): Promise<void> {
  const owned = await ownedOrLegacy(reservations, call)
  for (const [index, set] of sets.entries())
    for (const address of owned)
      if (rangeOf(set, parseIp(address)) !== undefined)
        throw new CniError(
          codes.duplicateAttachment,
          `failed to allocate for range ${index}: ${address} has been allocated to ${call.containerId}, duplicate allocation is not allowed`,
          { details: `DEL of ${call.containerId}, ${call.ifName} releases it` },
        )
}

function allocate(reservations: Reservations, config: HostLocalConfig, owner: Owner): ResultIp[] {
  const open = new Set(config.requested)
  const ips = config.sets.map((set, index) => {
    const requested = [...open].find(address => rangeOf(set, parseIp(address)) !== undefined)
    if (requested !== undefined) open.delete(requested)
    const { ip, refusal } =
      requested === undefined
        ? takeNext(reservations, set, index, owner)
        : takeThis(reservations, set, requested, owner)
    if (ip === undefined) throw unavailable(`failed to allocate for range ${index}: ${refusal}`)
    reservations.noteLastReserved(index, formatIp(ip))
    const range = rangeOf(set, ip)!
    return { address: formatPrefix({ ip, length: range.subnet.length }), gateway: formatIp(range.gateway) }
  })
  if (open.size > 0) throw unavailable(`failed to allocate all requested IPs: ${[...open].join(' ')}`)
  return ips
}

type Taken = { readonly ip: Ip; readonly refusal?: never } | { readonly ip?: never; readonly refusal: string }

function takeNext(reservations: Reservations, set: RangeSet, index: number, owner: Owner): Taken {
  const last = tryParseIp(reservations.lastReserved(index) ?? '')
  for (const { ip } of candidates(set, last)) {
    const address = formatIp(ip)
    if (!reservations.isTaken(address) && reservations.tryReserve(address, owner)) return { ip }
  }
  return { refusal: `no IP addresses available in range set: ${formatRangeSet(set)}` }
}

function takeThis(reservations: Reservations, set: RangeSet, address: string, owner: Owner): Taken {
  const ip = parseIp(address)
  if (isGateway(set, ip)) return { refusal: `requested ip ${address} is subnet's gateway` }
  return reservations.tryReserve(address, owner)
    ? { ip }
    : { refusal: `requested IP address ${address} is not available in range set ${formatRangeSet(set)}` }
}

const containerAlone = ({ containerId }: Owner): Owner => ({ containerId, ifName: '' })

async function ownedOrLegacy(reservations: Reservations, owner: Owner): Promise<string[]> {
  return [...(await reservations.ownedBy(owner)), ...(await reservations.ownedBy(containerAlone(owner)))]
}

/** Every one is tried, and the first failure told. */
function releaseAll(reservations: Reservations, addresses: readonly string[]): void {
  const failures: unknown[] = []
  for (const address of addresses)
    try {
      reservations.release(address)
    } catch (error) {
      failures.push(error)
    }
  if (failures.length > 0) throw failures[0]
}

function readDns(path: string): Dns {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new CniError(codes.io, `Cannot read ipam.resolvConf: ${(error as Error).message}`, { cause: error })
  }
}

const optionsOf = ({ deadline, signal }: Call, world: World) => ({
  deadline,
  signal,
  index: world.longLived ? ('memory' as const) : tryJournal(world),
})

/** One process opens it when it is asked for; where it cannot, reservations are found by reading them. */
function tryJournal(world: World): Journal | undefined {
  try {
    return world.journal
  } catch {
    return undefined
  }
}

const unavailable = (msg: string) => new CniError(codes.addressUnavailable, msg)

const checkFailed = (msg: string) => new CniError(codes.checkFailed, msg)
