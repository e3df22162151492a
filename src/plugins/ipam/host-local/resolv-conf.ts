// SPDX-License-Identifier: Apache-2.0

import type { Dns } from '#cni'

/** Reads the text of a resolv.conf(5) as the reference does: comments at the start of a line only, several lines of a kind add up. */
export function parseResolvConf(text: string): Dns {
  const dns: Dns = {}
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line.trim().split(/\s+/)
    const [first] = values
    if (keyword === undefined || first === undefined) continue
    switch (keyword) {
      case 'nameserver':
        dns.nameservers = [...(dns.nameservers ?? []), first]
        break
      case 'domain':
        dns.domain = first
        break
      case 'search':
        dns.search = [...(dns.search ?? []), ...values]
        break
      case 'options':
        dns.options = [...(dns.options ?? []), ...values]
        break
    }
  }
  return dns
}
