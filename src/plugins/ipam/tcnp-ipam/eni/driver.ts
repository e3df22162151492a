// SPDX-License-Identifier: Apache-2.0

import {
  type AddressOwner,
  AllocationError,
  type CloudObject,
  type Limits,
  type MadeObject,
  markOfName,
  nameOfMark,
  type ObjectDriver,
  type ObjectRequest,
  type ObjectState,
  type Room,
  withFileLock,
} from '#allocator'
import { atMost, isPast } from '#base'
import { type CloudSession, OpenStackError, type Port } from '#openstack'
import type { World } from '../../../world.ts'
import { disassociateFloatingIps } from '../floating-ips.ts'
import { descriptionOf, tagsOf } from '../separate/owner-mark.ts'
import { findFree, withNumbers } from '../separate/room.ts'
import { unfinished } from '../unfinished.ts'
import { awaitLink } from './link.ts'
import { makePort, type NicPool } from './port.ts'

/** From the link until Neutron says that the port passes packets; some clouds never say it. */
const ACTIVE_MS = 30_000
/** An attachment that an earlier process began gets so many times as long for its link: nobody saw Nova's answer. */
const UNFINISHED_TIMES = 4
/** From Nova's 202 until the NIC is out of the server; others wait meanwhile, so what takes longer is asked for again later. */
const UNPLUG_MS = 15_000
/** NICs in quarantine after which no further one is attached: the next would fare no better, and slots are few. */
const QUARANTINE_MAX = 2

export type NicOptions = {
  readonly cloud: Pick<CloudSession, 'neutron' | 'nova' | 'identity'>
  readonly host: World['host']
  readonly pool: NicPool
  /** Held while a NIC is attached: one at a time per server, and none is counted twice. */
  readonly lockFile: string
  /** What the journal knows of this node's NICs, those of other pools too. */
  readonly known: () => readonly CloudObject[]
  /** Has an idle NIC of another pool detached, where there is one; in the background. */
  readonly makeRoom: () => boolean
}

/**
 * Makes NICs of the node: first a port with our mark in its name, then its attachment, one at a time, as Nova does it. So a
 * lost answer never leaves a NIC that nobody knows. The server's own NICs have no mark and are never touched.
 */
export function nicDriver(options: NicOptions): ObjectDriver {
  const { cloud, pool } = options
  const { neutron, nova } = cloud
  const server = pool.server.id
  const attachedPorts = (limits: Limits) => neutron.ports.list({ device_id: server }, limits)

  async function create([request]: readonly ObjectRequest[], limits: Limits): Promise<MadeObject[]> {
    return (await withFileLock(options.lockFile, () => createAlone(request!, limits), limits))!
  }

  async function createAlone(request: ObjectRequest, limits: Limits): Promise<MadeObject[]> {
    const room = roomOf(pool, await attachedPorts(limits))
    if (room.count === 0) throw full(options, `Cannot attach a NIC: ${room.text}`)
    refuseAfterBroken(options)
    const port = await makePort(neutron, pool, request, limits).catch(async (error: unknown) => {
      throw await withNumbers(error, () =>
        findFree(
          cloud,
          pool.network.id,
          pool.families.map(each => each.subnets),
          limits,
        ),
      )
    })
    try {
      await attach(port.id, limits)
    } catch (error) {
      if (!isCertain(error)) throw error
      await neutron.ports.delete(port.id, limits).catch(failure => {
        throw unfinished(FINISH, failure)
      })
      throw isFull(error) ? full(options, `${error.summary}; ${room.text}`, error) : error
    }
    try {
      const flaw = await findFlaw(options, port, limits, pool.plugMs)
      if (flaw === undefined) await awaitActive(port.id, limits)
      return [{ ...toMade(port, request.mark), flaw }]
    } catch (error) {
      throw unfinished(FINISH, error)
    }
  }

  async function attach(id: string, limits: Limits): Promise<void> {
    try {
      await nova.interfaces.attach(server, { port_id: id }, limits)
    } catch (error) {
      // "Still in use" is what a second try meets where the answer of the first was lost.
      const mayBeOurs = !isCertain(error) || (error instanceof OpenStackError && error.kind === 'conflict')
      if (!mayBeOurs || (await nova.interfaces.get(server, id, limits)) === undefined) throw error
    }
  }

  async function awaitActive(id: string, limits: Limits): Promise<void> {
    try {
      await nova.interfaces.waitUntilActive(server, id, { ...limits, deadline: atMost(limits.deadline, ACTIVE_MS) })
    } catch (error) {
      if (!(error instanceof OpenStackError) || error.type !== 'TimeOut') throw error
    }
  }

  async function list(limits: Limits): Promise<MadeObject[]> {
    const states = new Map(options.known().map(object => [object.mark, object.state]))
    const names = [...states].filter(([, state]) => MAY_BE_LOOSE.has(state)).map(([mark]) => nameOfMark(mark))
    const [attached, tagged, named] = await Promise.all([
      attachedPorts(limits),
      neutron.ports.list({ tags: tagsOf(pool.owner), device_id: '' }, limits),
      names.length === 0 ? [] : neutron.ports.list({ name: names, device_id: '' }, limits),
    ])
    const made: MadeObject[] = []
    for (const port of new Map([...tagged, ...named, ...attached].map(each => [each.id, each])).values()) {
      const mark = markOfName(port.name)
      if (mark === undefined) continue
      const condition = port.device_id === '' ? { isPart: true } : await conditionOf(port, states.get(mark), limits)
      made.push({ ...toMade(port, mark), ...condition })
    }
    return made
  }

  async function conditionOf(port: Port, state: ObjectState | undefined, limits: Limits): Promise<Partial<MadeObject>> {
    // In a pod, or on the way from there: where its link is, is no business of ours.
    if (state === 'assigned' || state === 'releasing') return {}
    // Nova may be at it still: the port is the server's from the begin of the attachment.
    const flaw = await findFlaw(options, port, limits, state === 'making' ? UNFINISHED_TIMES * pool.plugMs : 0)
    return flaw === undefined ? { isIdle: true } : { flaw }
  }

  async function remove({ id, mark }: CloudObject, limits: Limits): Promise<void> {
    const name = nameOfMark(mark)
    const shown = id === '' ? (await neutron.ports.list({ name }, limits))[0] : await neutron.ports.get(id, limits)
    if (shown === undefined && id === '') return
    // One that is not shown may be too new for the replica that was asked; where it is gone, nothing happens.
    const port = shown ?? { id, device_id: server }
    // What somebody has given to another server is no longer this node's.
    if (port.device_id !== server && port.device_id !== '') return
    if (port.device_id === server) {
      await nova.interfaces.detach(server, port.id, limits)
      // 202 says nothing: Nova answers it for anything.
      const until = { ...limits, deadline: atMost(limits.deadline, UNPLUG_MS) }
      await nova.interfaces.waitUntilDetached(server, port.id, until)
    }
    await neutron.ports.delete(port.id, limits)
  }

  async function describe({ id }: CloudObject, owner: AddressOwner, limits: Limits): Promise<void> {
    await neutron.ports.update(id, { description: descriptionOf(pool.owner, owner) }, { ...limits, repeat: true })
  }

  async function recycle(objects: readonly CloudObject[], limits: Limits): Promise<void> {
    const ids = objects.map(each => each.id)
    await disassociateFloatingIps(neutron, ids, limits)
    for (const id of ids)
      await neutron.ports.update(id, { description: descriptionOf(pool.owner, undefined) }, { ...limits, repeat: true })
  }

  const room = async (limits: Limits) => roomOf(pool, await attachedPorts(limits))
  return { batchMax: 1, parallel: 1, create, list, remove, describe, recycle, room }
}

/** States in which a NIC of ours may be attached to no server. */
const MAY_BE_LOOSE: ReadonlySet<ObjectState> = new Set(['making', 'releasing', 'removing'])

const toMade = (port: Port, mark: string): MadeObject => ({
  id: port.id,
  mark,
  addresses: port.fixed_ips.map(each => ({ subnetId: each.subnet_id, address: each.ip_address })),
  mac: port.mac_address.toLowerCase(),
  detail: '',
})

const FINISH = 'finish the attachment of a NIC'

const isCertain = (error: unknown) => error instanceof OpenStackError && error.effect === 'none'

/** Nova's word for a server without a free slot, or a project that may have no further port. */
const isFull = (error: unknown): error is OpenStackError =>
  error instanceof OpenStackError && (error.kind === 'exhausted' || error.kind === 'quota')

function full({ makeRoom }: NicOptions, text: string, cause?: unknown): AllocationError {
  const comfort = makeRoom() ? '; an idle one of another network is being detached' : ''
  return new AllocationError('full', `${text}${comfort}`, { cause })
}

function roomOf({ server, nicsMax, nicsMaxBy }: NicPool, attached: readonly Port[]): Room {
  const ours = attached.filter(({ name }) => markOfName(name) !== undefined).length
  return {
    count: Math.max(0, nicsMax - attached.length),
    text:
      `server ${server.name} (${server.id}) has ${attached.length} of at most ${nicsMax} NICs (${nicsMaxBy}): ` +
      `${ours} for pods, ${attached.length - ours} others`,
  }
}

/** @throws {AllocationError} where NICs came without a link before, and nobody has looked into it */
function refuseAfterBroken({ known, pool: { server } }: NicOptions): void {
  const broken = known().filter(({ state }) => state === 'quarantined')
  if (broken.length < QUARANTINE_MAX) return
  throw new AllocationError(
    'broken',
    `Cannot attach a further NIC to server ${server.name} (${server.id}): ${broken.length} are in quarantine ` +
      `(${broken.map(({ mac }) => mac).join(', ')})`,
    { remedy: 'see "mooring ip list" for the reason, then "mooring ip adopt" or "mooring ip release"' },
  )
}

/** Why the node cannot use a NIC that Nova has attached; undefined as soon as its link is there. */
async function findFlaw(
  { pool, host }: NicOptions,
  { id, mac_address: mac }: Port,
  limits: Limits,
  ms: number,
): Promise<string | undefined> {
  if ((await awaitLink(host, mac.toLowerCase(), limits, ms)) !== undefined) return undefined
  // Who was not waited for to the end is not known to stay away.
  if (isPast(limits.deadline) || limits.signal?.aborted)
    throw new AllocationError('late', `Cannot wait for the link of port ${id} (${mac}) any longer: the time is over`)
  const { server } = pool
  return (
    `port ${id} (${mac}) is attached to server ${server.name} (${server.id}), and no link of the node has this MAC` +
    `${ms > 0 ? ` after ${ms / 1000} s` : ''}; see dmesg on the node (acpiphp, pciehp: PCI hot-plug), and the log of nova-compute`
  )
}
