// SPDX-License-Identifier: Apache-2.0

/** How full the networks are; administrators only. */
import { ipToBigInt, parseIp } from '#base'
import { type Answer, type Call, isAdmin, type RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'
import { list, type Network, type State } from '../state.ts'
import { networkKind } from './network.ts'
import { get } from './resource.ts'

function view(state: State, network: Network) {
  const subnets = list(state, 'subnets')
    .filter(subnet => subnet.network_id === network.id)
    .map(subnet => ({
      subnet_id: subnet.id,
      ip_version: subnet.ip_version,
      cidr: subnet.cidr,
      subnet_name: subnet.name,
      used_ips: list(state, 'ports').flatMap(port => port.fixed_ips.filter(fixed => fixed.subnet_id === subnet.id))
        .length,
      total_ips: Number(
        subnet.allocation_pools.reduce(
          (sum, pool) => sum + ipToBigInt(parseIp(pool.end)) - ipToBigInt(parseIp(pool.start)) + 1n,
          0n,
        ),
      ),
    }))
  return {
    network_id: network.id,
    network_name: network.name,
    tenant_id: network.project_id,
    project_id: network.project_id,
    subnet_ip_availability: subnets,
    used_ips: subnets.reduce((sum, subnet) => sum + subnet.used_ips, 0),
    total_ips: subnets.reduce((sum, subnet) => sum + subnet.total_ips, 0),
  }
}

/** A member gets an empty list, and 404 for one network. */
function indexAll(call: Call): Answer {
  const networks = isAdmin(call) ? list(call.state, 'networks') : []
  return { status: 200, body: { network_ip_availabilities: networks.map(network => view(call.state, network)) } }
}

function showOne(call: Call): Answer {
  if (!isAdmin(call)) throw new Fault(404, 'HTTPNotFound', 'The resource could not be found.')
  const network = get(call, networkKind, call.parameters['id'] ?? '')
  return { status: 200, body: { network_ip_availability: view(call.state, network) } }
}

export const availabilityRoutes: RouteTable = [
  ['GET', '/v2.0/network-ip-availabilities', indexAll],
  ['GET', '/v2.0/network-ip-availabilities/:id', showOne],
]
