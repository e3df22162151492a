// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import {
  AllocationError,
  type CloudObject,
  type Limits,
  type MadeObject,
  markOfName,
  nameOfMark,
  type ObjectDriver,
  type ObjectRequest,
} from '#allocator'
import { type CloudSession, OpenStackError, type Port } from '#openstack'
import { unfinished } from '../unfinished.ts'

/** Which port an attachment asks for. JSON. */
export type AdoptedPort = { readonly portId: string }

export const KIND = 'adopted'
/** Says in `device_owner` that a port of somebody's is a pod's for a while; its name and description stay its owner's. */
export const DEVICE_OWNER = 'mooring:adopted'
const TRIES_MAX = 5
/**
 * Of two that take a port at the same moment Neutron tells both that they have it, and the last one does: a look after
 * this long, longer than their writes overlap, tells them apart.
 */
const OVERLAP_MS = 300

/** Ports that exist: taken for an attachment by `device_owner` and `device_id`, given back by emptying both, never deleted. */
export function adoptedDriver({ neutron }: Pick<CloudSession, 'neutron'>): ObjectDriver {
  async function adopt({ mark, special }: ObjectRequest, limits: Limits): Promise<MadeObject> {
    const { portId } = JSON.parse(special) as AdoptedPort
    const deviceId = nameOfMark(mark)
    let hasWritten = false
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const port = await neutron.ports.get(portId, limits).catch((error: unknown) => {
        throw hasWritten ? unfinished(`take port ${portId}`, error) : error
      })
      if (port?.device_id === deviceId) return toMade(port)
      const reason =
        port === undefined ? 'Neutron does not know it' : (reasonAgainst(port) ?? (await trunkOver(port, limits)))
      if (reason !== undefined) throw new AllocationError('taken', `Cannot use port ${portId}: ${reason}`)
      try {
        const changes = { device_id: deviceId, device_owner: DEVICE_OWNER }
        await neutron.ports.update(portId, changes, { ...limits, ifRevision: port!.revision_number })
        hasWritten = true
      } catch (error) {
        if (!(error instanceof OpenStackError) || error.kind !== 'conflict') throw error
      }
      await sleep(OVERLAP_MS, undefined, limits.signal === undefined ? {} : { signal: limits.signal })
    }
    throw new AllocationError('taken', `Cannot use port ${portId}: somebody else writes to it all the time`)
  }

  /** A subport is as free as others to look at until its parent is attached; from then on it is the parent's VLAN. */
  async function trunkOver({ id, project_id }: Port, limits: Limits): Promise<string | undefined> {
    if (!(await neutron.extensions.aliases(limits)).has('trunk')) return undefined
    const all = await neutron.trunks.list({ project_id }, limits)
    const over = all.find(({ sub_ports }) => sub_ports.some(each => each.port_id === id))
    return over === undefined ? undefined : `it is a subport of trunk ${over.id} ("${over.name}")`
  }

  return {
    batchMax: 1,
    parallel: 4,
    create: async (requests, limits) => {
      const adopted: MadeObject[] = []
      for (const request of requests) adopted.push(await adopt(request, limits))
      return adopted
    },
    async list(limits) {
      const found = await neutron.ports.list({ device_owner: DEVICE_OWNER }, limits)
      return found.filter(port => markOfName(port.device_id) !== undefined).map(toMade)
    },
    async remove({ id, mark }: CloudObject, limits) {
      const isOurs = async () => (await neutron.ports.get(id, limits))?.device_id === nameOfMark(mark)
      if (!(await isOurs())) {
        // An old answer shows it as it was before it was taken.
        await sleep(OVERLAP_MS, undefined, limits.signal === undefined ? {} : { signal: limits.signal })
        // Gone, or somebody has given it to something else: then it is not ours to change.
        if (!(await isOurs())) return
      }
      await neutron.ports.update(id, { device_id: '', device_owner: '' }, { ...limits, repeat: true })
    },
  }
}

/** Why a port cannot be a pod's, undefined where it can. */
function reasonAgainst({ device_id, device_owner, trunk_details }: Port): string | undefined {
  if (device_owner === DEVICE_OWNER) return `another attachment has it (device ${device_id})`
  if (device_id !== '' || device_owner !== '')
    return `it is attached (device_owner "${device_owner}", device_id "${device_id}")`
  return trunk_details === undefined ? undefined : 'it is the parent of a trunk'
}

const toMade = ({ id, device_id, mac_address, fixed_ips }: Port): MadeObject => ({
  id,
  mark: markOfName(device_id) ?? '',
  addresses: fixed_ips.map(each => ({ subnetId: each.subnet_id, address: each.ip_address })),
  mac: mac_address.toLowerCase(),
  detail: '',
})
