// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import { listAttachments } from '#allocator'
import { atMost, deadlineIn, isPast, isV4, networkOf, parseIp, parsePrefix, prefixContains, tryParseMac } from '#base'
import { type Call, CniError, codes, type Result } from '#cni'
import {
  type FoundNic,
  identifyNetns,
  isPlugged,
  movesNic,
  type NetnsIdentity,
  type NicSelector,
  type NicState,
  tryOpenSameNetns,
} from '#host'
import { EEXIST, ENODEV } from '#libc'
import { NetlinkError } from '#netlink'
import { type At, type Attach, type Check, interfacePlugin } from '../../interface.ts'
import { hasOtherLinks, routesOf } from '../../lease.ts'
import { settleAddresses } from '../../settle.ts'
import type { World } from '../../world.ts'
import { type Config, describeSelector, parseConfig } from './config.ts'
import { heldNetns, holdAll, holdNetns, releaseNetns } from './held.ts'

const TYPE = 'host-device'
/** From the lease of a NIC that the cloud has just attached, until the kernel has found it. */
const PLUG_MS = 30_000
/** From the end of a namespace until the kernel has put its NIC back. */
const RETURN_MS = 2_000
/** Looks again after so long, whatever the kernel says. */
const LOOK_MS = 200

/** What an attachment has: the NIC as it was on the node; null for a device that a program drives (DPDK). */
type Traces = {
  nic: NicState | null
  /** How the configuration named it. */
  selector: string
  /** Its number in the container. */
  podIndex: number | null
  netns: string
  netnsIdentity: NetnsIdentity
  /** The boot in which that was its number. */
  bootId: string
}

/** Gives a container a NIC of the node, and the node the NIC back with all that it had. */
export const hostDevice = interfacePlugin<Config, Traces>({
  type: TYPE,
  ipam: 'optional',
  parse: parseConfig,
  attach,
  detach,
  findTraces,
  isThere,
  findFaults,
  requireReady,
})

/** See held.ts; for the agent. */
export const holdNamespaces = (world: World): Disposable => holdAll(world, TYPE)

async function attach(attach: Attach<Config, Traces>): Promise<Result> {
  const { call, world, config, key, takeAddresses, note, undo } = attach
  const early = config.selector === undefined ? undefined : await requireNic(config.selector, attach)
  const asksByLink = attach.asksByLink && early !== undefined && 'nic' in early
  const leased = asksByLink ? undefined : await takeAddresses()
  const found = early ?? (await nicOfLease(leased!, attach))
  const netnsFd = call.netnsFd!
  const traces: Traces = {
    nic: 'nic' in found ? found.nic : null,
    selector: JSON.stringify(config.selector ?? null),
    podIndex: null,
    netns: call.netns,
    netnsIdentity: identifyNetns(netnsFd),
    bootId: world.bootId,
  }
  note(traces)
  if (!('nic' in found)) return resultOf(attach, leased!, {})
  const { nic } = found
  holdNetns(world, key, netnsFd)
  // The verb cleans up behind itself; where it could not, this does, or the record stays.
  undo(() => detach(traces, { call, world, key }))
  const moved = await world.host.moveNicIn({ nic, netnsFd, ifName: call.ifName }).catch(error => {
    throw refusalOf(error, call, nic)
  })
  note({ ...traces, podIndex: moved.index })
  if (asksByLink) await configure(attach, {})
  const lease = leased ?? (await takeAddresses())
  await configure(attach, lease)
  return resultOf(attach, lease, { mac: moved.mac, mtu: moved.mtuBytes })
}

/** @throws {CniError} 7 where there is none, or it carries the node's default route */
async function requireNic(selector: NicSelector, attach: Attach<Config, Traces>): Promise<FoundNic> {
  const found = await attach.world.host.findNic({ selector })
  if (found === undefined) throw notFound(selector, codes.invalidConfig)
  await refuseUplink(found, attach)
  return found
}

/** @throws {CniError} 7 where the node would be cut off */
async function refuseUplink(found: FoundNic, { world, config }: Attach<Config, Traces>): Promise<void> {
  if ('nic' in found && !config.allowDefaultRoute && (await world.host.findUplink({}))?.index === found.nic.index)
    throw new CniError(
      codes.invalidConfig,
      `Cannot give ${found.nic.name} to a container: the default route of the node leads through it`,
      { details: 'choose another NIC; "allowDefaultRoute": true gives this one away nevertheless' },
    )
}

function notFound(selector: NicSelector, code: typeof codes.invalidConfig | typeof codes.notAvailable): CniError {
  const message =
    selector.by === 'deviceId'
      ? `runtime config DeviceID ${selector.id} not found or unsupported`
      : `failed to find host device: the node has none with ${describeSelector(selector)}`
  return new CniError(code, message, { details: 'see ip -d link; a NIC that another container has is not on the node' })
}

/** The NIC that the IPAM plugin names in its result: `interfaces[0].mac`. It may be on its way still. */
async function nicOfLease(lease: Result, attach: Attach<Config, Traces>): Promise<FoundNic> {
  const { call, world } = attach
  const mac = lease.interfaces?.[0]?.mac
  if (mac === undefined)
    throw new CniError(codes.invalidConfig, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"', {
      details: 'or an IPAM plugin whose result names the NIC by "interfaces[0].mac"; this one gave an address alone',
    })
  const selector: NicSelector = { by: 'mac', mac: mac.toLowerCase() }
  for (const deadline = atMost(call.deadline, PLUG_MS); ; await world.host.awaitLinkChange({ ms: LOOK_MS })) {
    const found = await world.host.findNic({ selector })
    if (found !== undefined) {
      await refuseUplink(found, attach)
      return found
    }
    if (isPast(deadline) || call.signal.aborted)
      throw new CniError(codes.tryAgainLater, `Cannot find the NIC ${mac} that the IPAM plugin gave: it did not come`, {
        details: 'see what the server has: openstack server show, and dmesg on the node (acpiphp)',
      })
  }
}

function refusalOf(error: unknown, { ifName }: Call, nic: NicState): unknown {
  if (!(error instanceof NetlinkError)) return error
  if (error.errno === EEXIST && error.request === movesNic(nic.name, ifName))
    return new CniError(
      codes.duplicateAttachment,
      `Cannot attach ${ifName}: the container has an interface of that name`,
      { details: 'choose another CNI_IFNAME, or delete the earlier attachment first', cause: error },
    )
  if (error.errno === ENODEV)
    return new CniError(codes.tryAgainLater, `failed to find host device: ${nic.name} is gone meanwhile`, {
      cause: error,
    })
  return error
}

async function configure({ call, world }: Attach<Config, Traces>, lease: Result): Promise<void> {
  const { ifName } = call
  const netnsFd = call.netnsFd!
  const addresses = (lease.ips ?? []).map(({ address }) => parsePrefix(address))
  await world.host.configureNic({ netnsFd, pod: { ifName, addresses, routes: routesOf(lease) } })
  if (addresses.some(({ ip }) => !isV4(ip))) await settleAddresses(call, world)
}

function resultOf(
  { call, config }: Attach<Config, Traces>,
  { ips, routes }: Result,
  link: { mac?: string; mtu?: number },
): Result {
  return {
    interfaces: [{ name: call.ifName, ...link, sandbox: call.netns }],
    ...(ips === undefined ? {} : { ips: ips.map(ip => ({ ...ip, interface: 0 })) }),
    ...(routes === undefined ? {} : { routes }),
    ...(config.dns === undefined ? {} : { dns: config.dns }),
  }
}

async function detach(
  { nic, podIndex, netns, netnsIdentity, bootId }: Traces,
  { call, world, key }: At,
): Promise<void> {
  if (nic === null) return
  using lent = openContainer({ call, world, key }, { netns, netnsIdentity, bootId })
  const lost = { nic, podIndex, netnsFd: lent.fd }
  if (!(await world.host.bringNicHome(lost))) await awaitReturn(nic, world)
  releaseNetns(world, key)
}

/** The container's namespace, by whatever leads to it still: the agent holds it, the caller gave it, the path is there. */
function openContainer(
  { call, world, key }: At,
  { netns: path, netnsIdentity: identity, bootId }: Pick<Traces, 'netns' | 'netnsIdentity' | 'bootId'>,
): Disposable & { fd: number | undefined } {
  const fd = heldNetns(world, key)
  if (fd !== undefined) return { fd, [Symbol.dispose]: () => {} }
  // After a boot the same path and number may be another container's.
  if (bootId !== world.bootId) return { fd: undefined, [Symbol.dispose]: () => {} }
  const given = call.netnsFd === undefined ? undefined : tryOpenSameNetns(`/proc/self/fd/${call.netnsFd}`, identity)
  const own = given ?? tryOpenSameNetns(path, identity)
  return { fd: own, [Symbol.dispose]: () => own !== undefined && closeSync(own) }
}

/**
 * A NIC of a bus outlives its namespace: a moment later the kernel puts it into the first namespace of the machine. One
 * that is there already, or unplugged, or virtual, does not come any more.
 */
async function awaitReturn(nic: NicState, world: World): Promise<void> {
  const isComing = nic.kind === null && nic.parent !== null && isPlugged(nic.parent)
  if (!isComing) return
  for (const deadline = deadlineIn(RETURN_MS); !isPast(deadline); await world.host.awaitLinkChange({ ms: LOOK_MS })) {
    const found = await world.host.findNic({ selector: { by: 'name', name: nic.name } })
    const isHome = found !== undefined && 'nic' in found && found.nic.permanentMac === nic.permanentMac
    if (isHome && found.nic.alias !== nic.name) return
    if (await world.host.bringNicHome({ nic, podIndex: null, netnsFd: undefined })) return
  }
}

/** What the reference's plugin left, or one whose journal is lost: the alias of the NIC is its name on the node. */
async function findTraces({ call, world }: At): Promise<Traces[]> {
  const { netnsFd, ifName, netns } = call
  const found = netnsFd === undefined ? undefined : await world.host.findStrayNic({ netnsFd, ifName })
  return found === undefined
    ? []
    : [{ ...found, selector: '', netns, netnsIdentity: identifyNetns(netnsFd!), bootId: world.bootId }]
}

async function isThere({ nic, podIndex }: Traces, { call, world }: At): Promise<boolean> {
  return nic === null || (await world.host.isNicIn({ nic, podIndex, netnsFd: call.netnsFd! }))
}

async function findFaults({
  call,
  world,
  config,
  prevResult,
  pod,
  podIndex,
  addresses,
  traces,
}: Check<Config, Traces>): Promise<readonly string[]> {
  if (traces?.nic === null || (await isUserspace(config, world))) return []
  const mac = tryParseMac(pod?.mac ?? '')
  const ips = (prevResult.ips ?? []).filter(ip => ip.interface === undefined || ip.interface === podIndex)
  // What later plugins of the chain added leads elsewhere.
  const isOwn = ({ gw }: { gw?: string }) =>
    gw === undefined || addresses.some(prefix => prefixContains(networkOf(prefix), parseIp(gw)))
  const routes = routesOf({ ips, routes: (prevResult.routes ?? []).filter(isOwn) })
  return await world.host.findNicFaults({
    netnsFd: call.netnsFd!,
    pod: {
      ...{ ifName: call.ifName, addresses, routes, byAnyLink: hasOtherLinks(prevResult, call) },
      // Its name on the node is how it finds its way back.
      ...{ mac, mtuBytes: pod?.mtu },
      ...(traces === undefined ? {} : { owner: traces.nic?.name, index: traces.podIndex ?? undefined, made: {} }),
    },
  })
}

async function isUserspace({ selector }: Config, world: World): Promise<boolean> {
  const found = selector === undefined ? undefined : await world.host.findNic({ selector })
  return found !== undefined && 'userspaceDriver' in found
}

/** A NIC that a container has is as good as one that waits for the next. */
async function requireReady({ selector }: Config, world: World): Promise<void> {
  if (selector === undefined || (await world.host.findNic({ selector })) !== undefined) return
  const name = JSON.stringify(selector)
  const isInUse = listAttachments(world.journal).some(
    ({ type, traces }) => type === TYPE && (JSON.parse(traces) as Traces | null)?.selector === name,
  )
  if (!isInUse) throw notFound(selector, codes.notAvailable)
}
