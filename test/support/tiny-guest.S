# The smallest guest that a hypervisor can be tested with: one boot sector. See tiny-guest.ts, which holds it assembled:
#   as tiny-guest.S -o tiny.o && ld -Ttext 0x7c00 --oformat binary -o tiny.bin tiny.o && base64 -w0 tiny.bin
# Byte 509 has its habits: 1 obeys the power button, 2 releases devices, 4 floods its console, 8 counts in sector 1, 16 powers itself off.
.code16
.globl _start
_start:
  cli
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0x7c00,%sp
  sti
  mov %dl,drive
  # the power button is noticed only when its event is enabled
  mov $0x602,%dx
  mov $0x100,%ax
  out %ax,%dx
  mov $up,%si
  call print
loop:
  testb $16,flags
  jnz power
  # power button: PM1a status 0x600 bit 8
  testb $1,flags
  jz 1f
  mov $0x600,%dx
  in %dx,%ax
  test $1,%ah
  jz 1f
power:
  mov $off,%si
  call print
  mov $0x604,%dx
  mov $0x2000,%ax
  out %ax,%dx
1:testb $2,flags
  jz 2f
  # every hot-plug bus: what is to be removed is ejected
  xor %ecx,%ecx
3:mov %ecx,%eax
  mov $0xcd0,%dx
  out %eax,%dx
  mov $0xcc4,%dx
  in %dx,%eax
  test %eax,%eax
  jz 4f
  cmp $-1,%eax
  je 4f
  mov $0xcc8,%dx
  out %eax,%dx
  mov $ej,%si
  call print
4:inc %cx
  cmp $48,%cx
  jb 3b
2:testb $4,flags
  jz 5f
  mov $fl,%si
  call print
5:testb $8,flags
  jz 6f
  mov $0x42,%ah
  call disk
  incl 0x8000
  mov $0x43,%ah
  call disk
6:# about 18 rounds a second, unless it floods
  testb $4,flags
  jnz loop
  hlt
  jmp loop
disk:
  mov $dap,%si
  mov drive,%dl
  xor %al,%al
  int $0x13
  jnc 1f
  mov $er,%si
  call print
1:ret
print:
  lodsb
  test %al,%al
  jz 2f
  mov %al,%ah
  mov $0x3fd,%dx
1:in %dx,%al
  test $0x20,%al
  jz 1b
  mov $0x3f8,%dx
  mov %ah,%al
  out %al,%dx
  jmp print
2:ret
up: .asciz "TINY UP\n"
off: .asciz "TINY OFF\n"
ej: .asciz "TINY EJECT\n"
er: .asciz "TINY DISK ERROR\n"
fl: .asciz "flood flood flood flood flood flood flood flood flood flood flood\n"
drive: .byte 0
.balign 4
dap: .byte 16,0
  .word 1
  .word 0x8000,0
  .quad 1
.org 509
flags: .byte 0xb
.word 0xaa55
