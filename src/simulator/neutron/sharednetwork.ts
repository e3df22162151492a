// SPDX-License-Identifier: Apache-2.0
import { type Call, isAdmin } from '../call.ts'
import { notAuthorized } from '../fault.ts'
import type { Network } from '../state.ts'
import { isOwn } from './resource.ts'

type Values = Readonly<Record<string, unknown>>
type Entry = Readonly<Record<string, unknown>>

/**
 * What a member may not say of a port on somebody else's network: addresses by name, MAC, port security, address pairs;
 * in an update no `fixed_ips` at all, not even those that the port has.
 * @throws {Fault} 403 `PolicyNotAuthorized`, with the rule as Neutron prints it.
 */
export function checkSharedNetwork(call: Call, network: Network, values: Values): void {
  if (isAdmin(call) || isOwn(call, network)) return
  const action = call.method === 'POST' ? 'create_port' : 'update_port'
  const nested = (name: string, entries: readonly Entry[], keys: readonly string[]): string => {
    const rules = entries.flatMap(entry =>
      keys.filter(key => entry[key] !== undefined).map(key => `rule:${action}:${name}:${key}`),
    )
    return `(rule:${action} and (rule:${action}:${name} and (${rules.join(' and ')})))`
  }
  const fixed = values['fixed_ips'] as readonly Entry[] | undefined
  const isNamed = fixed?.some(entry => entry['ip_address'] !== undefined) === true
  if (fixed !== undefined && (isNamed || call.method === 'PUT')) {
    throw notAuthorized(nested('fixed_ips', fixed, ['subnet_id', 'ip_address']))
  }
  const pairs = values['allowed_address_pairs'] as readonly Entry[] | undefined
  if (pairs !== undefined && pairs.length > 0) {
    throw notAuthorized(nested('allowed_address_pairs', pairs, ['ip_address']))
  }
  for (const name of ['mac_address', 'port_security_enabled']) {
    if (values[name] !== undefined) throw notAuthorized(`(rule:${action} and rule:${action}:${name})`)
  }
  if (String(values['device_owner'] ?? '').startsWith('network:')) {
    throw notAuthorized(`(rule:${action} and rule:${action}:device_owner)`)
  }
}
