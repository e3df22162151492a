// SPDX-License-Identifier: Apache-2.0

import {
  type Attachment,
  type AttachmentKey,
  findAttachment,
  forgetAttachment,
  listAttachments,
  putAttachment,
  setAttachmentState,
} from '#allocator'
import { formatIp, formatMac, isV4, networkOf, type Prefix, parsePrefix, tryParseMac } from '#base'
import {
  type Call,
  CniError,
  codes,
  formatJson,
  type Ipam,
  type Plugin,
  type Result,
  requireIps,
  type ValidAttachment,
} from '#cni'
import { type FirewallPod, makesPair, nextHops, type OwnedLink, type PodRoute, type Uplink } from '#host'
import { EEXIST } from '#libc'
import { NetlinkError } from '#netlink'
import { type LinkNames, linkNames } from '../../pair-names.ts'
import { asDel, callOf, keyOf, recordOf } from '../../record.ts'
import type { World } from '../../world.ts'
import { type Config, parseConfig } from './config.ts'
import { decodeTraces, encodeTraces, firewallPod, type Traces } from './traces.ts'
import { podMtu, refuseNodeAddress, uplinkFor } from './uplink.ts'

const TYPE = 'veth-route'
/**
 * How old a record must be that GC may remove. A list that was made just before the call may not know an ADD that has
 * just ended; an ADD that is under way may take as long as a call can (the reconciler looks after those that never end).
 */
const GC_AGE_MS_MIN = { ready: 100, adding: 120_000, deleting: 0 } as const

/**
 * One veth NIC per pod; the default route goes to 169.254.1.1 (fe80::1), which is the node, and the node routes each
 * pod address (/32, /128) to its veth. The segment learns the pod from the node, which answers ARP for it.
 */
export const vethRoute: Plugin<World> = { type: TYPE, add, del, check, status, gc }

async function add(call: Call, world: World): Promise<Result> {
  const config = parseConfig(call.config)
  const key = keyOf(call, TYPE)
  const names = linkNames(key)
  await clearStale(call, world, key)
  const uplink = await uplinkFor(config, world)
  const mtuBytes = podMtu(config, uplink)
  const ipam = await world.ipam(call, config.ipamType)

  await using undo = new AsyncDisposableStack()
  const record = { ...key, ...recordOf(call, world.bootId), state: 'adding' as const }
  const note = (traces: Traces) => putAttachment(world.journal, { ...record, traces: encodeTraces(traces) })
  const traces: Traces = {
    hostLink: names.hostLinks[0]!,
    owner: names.owner,
    addresses: [],
    uplinkIndex: config.proxyNeighbour ? uplink?.index : undefined,
    ipMasq: config.ipMasq,
    metadata: config.allowMetadata,
  }
  note(traces)
  // Runs last. The record stays where something could not be undone: the next DEL or the reconciler finishes it.
  let undone = true
  const deferUndo = (step: () => Promise<void>) =>
    undo.defer(() =>
      step().catch((error: unknown) => {
        undone = false
        throw error
      }),
    )
  undo.defer(() => {
    if (undone) forgetAttachment(world.journal, key)
  })

  const lease = await ipam.add(call)
  deferUndo(() => ipam.del(asDel(call)))
  const addresses = requireIps(lease).map(({ address }) => parsePrefix(address))
  refuseNodeAddress(uplink, addresses)
  const hostLink = await attach({
    call,
    world,
    names,
    uplink: config.proxyNeighbour ? uplink : undefined,
    mtuBytes,
    traces: { ...traces, addresses },
    routes: podRoutes(lease, addresses),
    note,
    deferUndo,
  })
  // An agent that started meanwhile may have taken this ADD for one that nobody finishes any more.
  if (!setAttachmentState(world.journal, key, 'ready'))
    throw new CniError(codes.tryAgainLater, `Cannot attach ${call.ifName}: the attachment was withdrawn meanwhile`)
  undo.move()
  return resultOf(call, config, names, hostLink, mtuBytes, lease)
}

type Attach = {
  call: Call
  world: World
  names: LinkNames
  uplink: Uplink | undefined
  mtuBytes: number
  traces: Traces
  routes: PodRoute[]
  note: (traces: Traces) => void
  deferUndo: (step: () => Promise<void>) => void
}

/** Makes the pair under the first of its names that is not another's. @returns the name */
async function attach({
  call,
  world,
  names,
  uplink,
  mtuBytes,
  traces,
  routes,
  note,
  deferUndo,
}: Attach): Promise<string> {
  const { owner, hostMac, podMac } = names
  const { ifName } = call
  for (const hostLink of names.hostLinks) {
    const own = { ...traces, hostLink }
    note(own)
    const pod = {
      hostLink,
      owner,
      ifName,
      netnsFd: call.netnsFd!,
      mtuBytes,
      hostMac,
      podMac,
      addresses: traces.addresses,
      routes,
    }
    try {
      const rebuilt = await world.host.attachRoutedPod({ pod, uplink, firewall: firewallPod(own) })
      deferUndo(() => removeFromNode(world, remainsOf(own, hostMac)))
      if (rebuilt) await restoreFirewall(world)
      return hostLink
    } catch (error) {
      // What else may exist already (a route, an address) has nothing to do with the names.
      const isTaken = error instanceof NetlinkError && error.errno === EEXIST && error.request === makesPair(hostLink)
      if (!isTaken) {
        // The verb cleans up behind itself; where it could not, this does, or the record stays.
        deferUndo(() => removeFromNode(world, remainsOf(own, hostMac)))
        throw error
      }
      const found = await world.host.describeLink({ name: hostLink })
      if (found === undefined) throw nameTaken(call, error)
      if (found.owner === owner) throw error
    }
  }
  throw new CniError(codes.kernel, `Cannot attach ${call.ifName}: the names ${names.hostLinks.join(', ')} are taken`, {
    details: 'remove the links that nobody needs any more: ip -d link show type veth',
  })
}

/** Puts back what somebody took away who flushed the node's rule set (firewalld, a restart of nftables). */
export async function keepFirewall(world: World): Promise<void> {
  const isUsed = listAttachments(world.journal, {}).some(({ type, state }) => type === TYPE && state === 'ready')
  if (isUsed && (await world.host.ensureFirewall())) await restoreFirewall(world)
}

/** What the other pods had in the rule set that was made again. */
async function restoreFirewall(world: World): Promise<void> {
  const pods = listAttachments(world.journal, {})
    .filter(({ type, state }) => type === TYPE && state === 'ready')
    .map(({ traces }) => firewallPod(decodeTraces(traces)))
  await world.host.addFirewallPods({ pods })
}

const nameTaken = (call: Call, cause: unknown) =>
  new CniError(codes.duplicateAttachment, `Cannot attach ${call.ifName}: the container has an interface of that name`, {
    details: 'choose another CNI_IFNAME, or delete the earlier attachment first',
    cause,
  })

async function del(call: Call, world: World): Promise<void> {
  const key = keyOf(call, TYPE)
  const failures: unknown[] = []
  const attempt = (step: () => unknown) =>
    Promise.try(step).catch((error: unknown) => {
      failures.push(error)
    })
  // Without the journal, or without room in it, the pod goes all the same, and its record with the next DEL.
  let record: Attachment | undefined
  await attempt(() => {
    record = findAttachment(world.journal, key)
    if (record !== undefined) setAttachmentState(world.journal, key, 'deleting')
  })
  let remains: Remains[] = []
  await attempt(async () => {
    remains =
      record === undefined
        ? await findRemains(world, key)
        : [remainsOf(decodeTraces(record.traces), linkNames(key).hostMac)]
  })
  for (const { traces, firewall } of remains) await attempt(() => world.host.detachRoutedPod({ traces, firewall }))
  // Before the addresses: the host route goes with the link, and the next pod that gets the address needs its place.
  if (remains.length > 0) await attempt(() => world.host.removeLinks({ links: remains.map(({ link }) => link) }))
  await attempt(async () => (await ipamForDel(call, world))?.del(call))
  if (failures.length > 0) throw failures[0]
  if (record !== undefined) forgetAttachment(world.journal, key)
}

/** The IPAM of a configuration that need not be valid any more; undefined where it names none. */
async function ipamForDel(call: Call, world: World): Promise<Ipam | undefined> {
  const { ipam } = call.config
  const type = ipam !== null && typeof ipam === 'object' && 'type' in ipam ? ipam['type'] : undefined
  return typeof type === 'string' && type !== '' ? world.ipam(call, type) : undefined
}

/** What there is to remove: proxy entries, firewall elements, link. */
type Remains = {
  traces: Pick<Traces, 'hostLink' | 'addresses' | 'uplinkIndex'>
  firewall: FirewallPod
  link: OwnedLink
}

const remainsOf = (traces: Traces, mac: Uint8Array): Remains => ({
  traces,
  firewall: firewallPod(traces),
  link: { name: traces.hostLink, owner: traces.owner, mac },
})

/** What an attachment without a record left on the node, by the names that follow from its key. */
async function findRemains(world: World, key: AttachmentKey): Promise<Remains[]> {
  const { hostLinks, owner, hostMac: mac } = linkNames(key)
  const found = await Promise.all(hostLinks.map(name => world.host.findRouted({ name, owner, mac })))
  const traces = found.filter(each => each !== undefined)
  if (traces.length === 0) return []
  const firewall = new Map((await world.host.listFirewallPods()).map(pod => [pod.link, pod]))
  return traces.map(each => ({
    traces: each,
    firewall: firewall.get(each.hostLink) ?? { link: each.hostLink, addresses: each.addresses.map(({ ip }) => ip) },
    link: { name: each.hostLink, owner, mac },
  }))
}

async function removeFromNode(world: World, { traces, firewall, link }: Remains): Promise<void> {
  await world.host.detachRoutedPod({ traces, firewall })
  await world.host.removeLinks({ links: [link] })
}

/**
 * An attachment of the same key may be there: a living one is an error; one that was never finished, or whose namespace
 * is another now, is removed first.
 */
async function clearStale(call: Call, world: World, key: AttachmentKey): Promise<void> {
  const record = findAttachment(world.journal, key)
  if (record === undefined) return
  const now = recordOf(call, world.bootId)
  const same = record.netnsInode === now.netnsInode && record.netnsDevice === now.netnsDevice
  if (record.state === 'ready' && record.bootId === world.bootId && same && (await isThere(record, world)))
    throw new CniError(
      codes.duplicateAttachment,
      `Cannot attach ${call.ifName}: container ${call.containerId} has it already`,
      {
        details: 'the earlier attachment is left as it is; send DEL first',
      },
    )
  await del({ ...callOf(record, 'DEL'), env: asDel(call).env, config: call.config, stdin: call.stdin }, world)
}

/** The kernel gives the number of a namespace that is gone to the next one; but its links went with it. */
async function isThere(record: Attachment, world: World): Promise<boolean> {
  const { hostLink, owner } = decodeTraces(record.traces)
  return (await world.host.describeLink({ name: hostLink }))?.owner === owner
}

async function check(call: Call, world: World): Promise<void> {
  const config = parseConfig(call.config)
  const { prevResult } = call
  if (prevResult === undefined) throw new CniError(codes.invalidConfig, 'Required prevResult missing')
  const index =
    prevResult.interfaces?.findIndex(({ name, sandbox }) => name === call.ifName && (sandbox ?? '') !== '') ?? -1
  const pod = prevResult.interfaces?.[index]
  if (pod === undefined) throw new CniError(codes.checkFailed, `Cannot find interface ${call.ifName} in prevResult`)
  if (pod.sandbox !== call.netns)
    throw new CniError(
      codes.checkFailed,
      `Sandbox in prevResult ${pod.sandbox} doesn't match configured netns ${call.netns}`,
    )
  await (await world.ipam(call, config.ipamType)).check(call)
  const names = linkNames(keyOf(call, TYPE))
  const host = prevResult.interfaces?.find(
    ({ name, sandbox }) => names.hostLinks.includes(name) && (sandbox ?? '') === '',
  )
  const addresses = (prevResult.ips ?? []).filter(ip => ip.interface === undefined || ip.interface === index)
  const hostLink = host?.name ?? names.hostLinks[0]!
  const prefixes = addresses.map(({ address }) => parsePrefix(address))
  const faults = await world.host.checkRoutedPod({
    pod: {
      hostLink,
      ifName: call.ifName,
      netnsFd: call.netnsFd!,
      podMac: tryParseMac(pod.mac ?? ''),
      addresses: prefixes,
      routes: (prevResult.routes ?? []).map(podRoute),
      uplinkIndex: config.proxyNeighbour ? (await uplinkFor(config, world))?.index : undefined,
    },
    firewall: firewallPod({
      hostLink,
      owner: names.owner,
      addresses: prefixes,
      uplinkIndex: undefined,
      ipMasq: config.ipMasq,
      metadata: config.allowMetadata,
    }),
  })
  if (faults.length > 0)
    throw new CniError(codes.checkFailed, `Attachment ${call.ifName} of ${call.containerId} is damaged: ${faults[0]}`, {
      details: faults.slice(1).join('; '),
    })
}

async function status(call: Call, world: World): Promise<void> {
  const config = parseConfig(call.config)
  await (await world.ipam(call, config.ipamType)).status(call)
  try {
    await uplinkFor(config, world)
  } catch (error) {
    throw error instanceof CniError
      ? new CniError(codes.notAvailable, error.message, { details: error.details })
      : error
  }
  const drops = config.allowForwardDrop ? [] : await world.host.findForeignForwardDrop()
  if (drops.length > 0)
    throw new CniError(codes.notAvailable, `Pods cannot be reached: ${drops.join(', ')} drops what is forwarded`, {
      details:
        'let pods pass there (docker: iptables -I DOCKER-USER -j ACCEPT, and iptables -P FORWARD ACCEPT); "allowForwardDrop": true ends this check',
    })
}

async function gc(call: Call, world: World, valid: readonly ValidAttachment[] | undefined): Promise<void> {
  const { ipamType } = parseConfig(call.config)
  const ipam = await world.ipam(call, ipamType)
  const failures: unknown[] = []
  if (valid !== undefined) {
    const now = Date.now()
    const living = new Set(valid.map(({ containerId, ifName }) => `${containerId}/${ifName}`))
    for (const record of recordsOf(world, call.network)) {
      if (living.has(`${record.containerId}/${record.ifName}`)) continue
      if (now - record.changedMs < GC_AGE_MS_MIN[record.state]) continue
      // Deletions take a while: what was attached anew meanwhile is another attachment.
      if (findAttachment(world.journal, record)?.changedMs !== record.changedMs) continue
      await del(callOf(record, 'DEL'), world).catch((error: unknown) => failures.push(error))
    }
  }
  // Read at the moment at which the IPAM is asked: what stays here keeps its address, also what came just now.
  const staying = valid === undefined ? call : withValid(call, [...valid, ...recordsOf(world, call.network)])
  await ipam.gc(staying).catch((error: unknown) => failures.push(error))
  if (failures.length > 0) throw failures[0]
}

const recordsOf = (world: World, network: string): Attachment[] =>
  listAttachments(world.journal, { network }).filter(({ type }) => type === TYPE)

/** The same call with another list of what is to stay. */
function withValid(call: Call, valid: readonly ValidAttachment[]): Call {
  const list = valid.map(({ containerId, ifName }) => ({ containerID: containerId, ifname: ifName }))
  const config = { ...call.config, 'cni.dev/valid-attachments': list, 'cni.dev/attachments': list }
  return { ...call, config, stdin: new TextEncoder().encode(formatJson(config)) }
}

/** The routes of the lease; a family without a default route gets one to its own subnet, which is not on the link. */
function podRoutes(lease: Result, addresses: readonly Prefix[]): PodRoute[] {
  const routes = (lease.routes ?? []).map(podRoute)
  for (const address of addresses) {
    const sameFamily = routes.filter(route => isV4(route.destination.ip) === isV4(address.ip))
    if (address.length < address.ip.length * 8 && !sameFamily.some(route => route.destination.length <= address.length))
      routes.push({ destination: networkOf(address) })
  }
  return routes
}

function podRoute({ dst, gw: _, scope: _scope, ...rest }: NonNullable<Result['routes']>[number]): PodRoute {
  return { destination: networkOf(parsePrefix(dst)), ...rest }
}

function resultOf(call: Call, config: Config, names: LinkNames, hostLink: string, mtu: number, lease: Result): Result {
  const addresses = requireIps(lease).map(({ address }) => parsePrefix(address))
  const dns = config.dns ?? lease.dns
  return {
    interfaces: [
      { name: hostLink, mac: formatMac(names.hostMac), mtu },
      { name: call.ifName, mac: formatMac(names.podMac), mtu, sandbox: call.netns },
    ],
    ips: requireIps(lease).map(ip => ({ ...ip, interface: 1 })),
    routes: podRoutes(lease, addresses).map(({ destination, ...rest }) => ({
      dst: `${formatIp(destination.ip)}/${destination.length}`,
      gw: formatIp(isV4(destination.ip) ? nextHops.v4 : nextHops.v6),
      ...rest,
    })),
    ...(dns === undefined
      ? {}
      : { dns: Object.fromEntries(Object.entries(dns).filter(([, value]) => value !== undefined)) }),
  }
}
