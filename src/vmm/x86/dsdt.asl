/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's fixed devices. Compiled by iasl when Wisp is built; addresses as in
 * vmm/pci/pci.h, vmm/dev/serial.h, vmm/dev/power.h and vmm/x86/acpi.h.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "WISP", "WISPDSDT", 1)
{
    /* SLP_TYP 5 for sleep control; all four elements, as ACPI 6.4, 7.4.2 asks. */
    Name (\_S5, Package () { 5, 5, 0, 0 })

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_CCA, 1)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0, 0, 0, 0, 1)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable,
                    ReadWrite, 0, 0xC0000000, 0xDFFFFFFF, 0, 0x20000000)
            })
        }

        /* Configuration space by memory (MCFG) is no resource of the bridge itself. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000)
                IO (Decode16, 0x0600, 0x0600, 1, 4)
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 0)
            Name (_STA, 0x0F)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 1, 8)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 4 }
            })
        }

        Device (PEVT)
        {
            Name (_HID, "QEMU0001")
            Name (_STA, 0x0F)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0604, 0x0604, 1, 1)
            })
        }

        Device (PWRB)
        {
            Name (_HID, EisaId ("PNP0C0C"))
            Name (_STA, 0x0F)
        }

        /* Tells a guest that it is a copy of another (Virtual Machine Generation ID, Microsoft). */
        Device (VGEN)
        {
            Name (_HID, "WISP0001")
            Name (_CID, "VMGENCTR")
            Name (_DDN, "VM_Gen_Counter")
            Name (_STA, 0x0F)
            Name (ADDR, Package () { 0x000FFF00, 0 })
        }

        /* The event device tells of the power button and of a new generation (ACPI 6.4, 5.6.9). */
        OperationRegion (EVTR, SystemIO, 0x0603, 1)
        Field (EVTR, ByteAcc, NoLock, Preserve)
        {
            EVTS, 8
        }
        Device (GED)
        {
            Name (_HID, "ACPI0013")
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 9 }
            })
            Method (_EVT, 1, Serialized)
            {
                Local0 = EVTS
                If (Local0 & 1)
                {
                    Notify (PWRB, 0x80)
                }
                If (Local0 & 2)
                {
                    Notify (VGEN, 0x80)
                }
            }
        }
    }
}
