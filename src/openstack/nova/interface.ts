// SPDX-License-Identifier: Apache-2.0
import { isMissing, OpenStackError } from '../error.ts'
import { isObject } from '../json.ts'
import { type Limits, pause } from '../limits.ts'
import type { FixedIp } from '../neutron/port.ts'
import type { Service } from '../service.ts'

/** A port attached to a server, as Nova sees it (it asks Neutron live). */
export type Interface = {
  readonly port_id: string
  readonly net_id: string
  readonly mac_addr: string
  /** `DOWN` right after the attach where a real agent wires the port. */
  readonly port_state: string
  readonly fixed_ips: readonly FixedIp[]
}

/** A port that exists, or a network on which Nova makes one (which it then deletes at the detach). */
export type Attachment =
  | { readonly port_id: string; readonly net_id?: undefined }
  | {
      readonly net_id: string
      readonly port_id?: undefined
      readonly fixed_ips?: readonly { readonly ip_address: string }[]
    }

export type Interfaces = {
  list(serverId: string, limits: Limits): Promise<Interface[]>
  /** Undefined if the port is not attached to the server, or the server does not exist. */
  get(serverId: string, portId: string, limits: Limits): Promise<Interface | undefined>
  /** Seconds in real clouds, and one at a time per server. With `port_id` repeated after a failure, once it is seen not to be attached. */
  attach(serverId: string, what: Attachment, limits: Limits): Promise<Interface>
  /** Only queues it: Nova answers 202 also for a port that is gone or was never attached. Then `waitUntilDetached`. */
  detach(serverId: string, portId: string, limits: Limits): Promise<void>
  /** @throws {OpenStackError} `TimeOut` if the port is not ACTIVE in time, `itemNotFound` if it is not attached any more. */
  waitUntilActive(serverId: string, portId: string, limits: Limits): Promise<Interface>
  /** @throws {OpenStackError} `TimeOut` if the port is still attached then. */
  waitUntilDetached(serverId: string, portId: string, limits: Limits): Promise<void>
}

/** Of a 500 that trying again does not change: the hypervisor has no slot for a further NIC. */
const noSlot = /failed to attach network adapter/i

const pollMs = 250
const pollMsMax = 2_000

export function interfaces(service: Service): Interfaces {
  const path = (serverId: string) => `/servers/${encodeURIComponent(serverId)}/os-interface`
  const pathOf = (serverId: string, portId: string) => `${path(serverId)}/${encodeURIComponent(portId)}`

  const get: Interfaces['get'] = async (serverId, portId, limits) => {
    const action = `get interface ${portId} of server ${serverId}`
    const answer = await service.tryAsk({ action, method: 'GET', path: pathOf(serverId, portId) }, limits)
    if (answer === undefined) return undefined
    const found = answer.body['interfaceAttachment']
    if (!isInterface(found)) throw answer.unexpected('the answer has no "interfaceAttachment"')
    return found
  }

  /** Nova has no notification for this, so it is asked, ever more slowly. */
  const poll = async (action: string, state: string, limits: Limits, done: () => Promise<boolean>): Promise<void> => {
    for (let ms = pollMs; !(await done()); ms = Math.min(pollMsMax, ms * 1.5))
      if (!(await pause(ms, limits))) throw late(action, state, limits)
  }

  return {
    get,
    async list(serverId, limits) {
      const action = `list interfaces of server ${serverId}`
      const answer = await service.ask({ action, method: 'GET', path: path(serverId) }, limits)
      const list = answer.body['interfaceAttachments']
      if (!Array.isArray(list) || !list.every(isInterface))
        throw answer.unexpected('the answer has no list "interfaceAttachments"')
      return list
    },
    async attach(serverId, what, limits) {
      const { port_id } = what
      let found: Interface | undefined
      const look = async () => {
        found = await get(serverId, port_id!, limits)
        return found !== undefined
      }
      const of = port_id === undefined ? `a port of network ${what.net_id}` : `port ${port_id}`
      const answer = await service.call(
        {
          action: `attach ${of} to server ${serverId}`,
          method: 'POST',
          path: path(serverId),
          body: { interfaceAttachment: what },
          look: port_id === undefined ? undefined : look,
          isFinal: ({ body }) => noSlot.test(body),
        },
        limits,
      )
      if (answer === undefined) return found!
      const attached = answer.body['interfaceAttachment']
      if (!isInterface(attached)) throw answer.unexpected('the answer has no "interfaceAttachment"')
      return attached
    },
    async detach(serverId, portId, limits) {
      const action = `detach port ${portId} from server ${serverId}`
      try {
        await service.ask({ action, method: 'DELETE', path: pathOf(serverId, portId), repeat: true }, limits)
      } catch (error) {
        if (!isMissing(error)) throw error
      }
    },
    async waitUntilActive(serverId, portId, limits) {
      const action = `wait until port ${portId} of server ${serverId} is active`
      let last: Interface | undefined
      await poll(action, 'it is not ACTIVE yet', limits, async () => {
        last = await get(serverId, portId, limits)
        if (last === undefined) throw gone(action)
        return last.port_state === 'ACTIVE'
      })
      return last!
    },
    async waitUntilDetached(serverId, portId, limits) {
      const action = `wait until port ${portId} is detached from server ${serverId}`
      await poll(
        action,
        'it is still attached',
        limits,
        async () => (await get(serverId, portId, limits)) === undefined,
      )
    },
  }
}

const isInterface = (value: unknown): value is Interface =>
  isObject(value) && typeof value['port_id'] === 'string' && Array.isArray(value['fixed_ips'])

const gone = (action: string) =>
  new OpenStackError({
    service: 'nova',
    action,
    reason: 'it is not attached any more',
    status: 404,
    type: 'itemNotFound',
    kind: 'missing',
    effect: 'none',
  })

const late = (action: string, state: string, limits: Limits) =>
  new OpenStackError({
    service: 'nova',
    action,
    reason: limits.signal?.aborted ? 'the caller went away' : `${state}, and no time is left`,
    status: 0,
    type: limits.signal?.aborted ? 'Aborted' : 'TimeOut',
    kind: 'transient',
    remedy: 'try again; if it stays, look at the log of nova-compute on the server’s host',
    effect: 'none',
  })
