// SPDX-License-Identifier: Apache-2.0
import { OpenStackError } from '../error.ts'
import { isObject } from '../json.ts'
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'

/** How full the allocation pools of a subnet are. */
export type SubnetAvailability = {
  readonly subnet_id: string
  readonly subnet_name: string
  readonly cidr: string
  readonly used_ips: number
  /** Of a large IPv6 subnet more than a number holds exactly. */
  readonly total_ips: number
}

export type Availability = {
  /** Undefined where the network does not exist, or the user is no administrator: Neutron answers both alike. */
  ofNetwork(networkId: string, limits: Limits): Promise<readonly SubnetAvailability[] | undefined>
}

export function availability(service: Service): Availability {
  return {
    async ofNetwork(networkId, limits) {
      const path = `/network-ip-availabilities/${encodeURIComponent(networkId)}`
      const action = `tell how many addresses of network ${networkId} are left`
      const answer = await service.ask({ action, method: 'GET', path }, limits).catch((error: unknown) => {
        // To a member Neutron says 404 without naming the network, as of a path that it does not have.
        if (error instanceof OpenStackError && (error.status === 404 || error.status === 403)) return undefined
        throw error
      })
      if (answer === undefined) return undefined
      const found = answer.body['network_ip_availability']
      const list = isObject(found) ? found['subnet_ip_availability'] : undefined
      if (!Array.isArray(list) || !list.every(isSubnet))
        throw answer.unexpected('the answer has no list "subnet_ip_availability"')
      return list
    },
  }
}

const isSubnet = (value: unknown): value is SubnetAvailability =>
  isObject(value) &&
  typeof value['subnet_id'] === 'string' &&
  typeof value['used_ips'] === 'number' &&
  typeof value['total_ips'] === 'number'
